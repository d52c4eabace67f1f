"""A store in a folder. Keys are paths below it; a write goes to a temporary file and is then linked or renamed.

<folder>/soda-store.json   says that this is a store; it is never made again once the store is open
<folder>/.tmp/             files being written, each locked by its writer; those of the dead are swept at opening
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import IO, BinaryIO, Final

from soda_jobs.errors import InvalidInput, Retry
from soda_jobs.store.base import MARKER, MARKER_DATA, URL_FIELD, NotFound, check_key, check_marker, check_prefix
from soda_jobs.store.temporary import new_file

_TEMPORARY: Final = ".tmp"
_CHUNK: Final = 1 << 20  # bytes
_NO_LINKS: Final = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)


class _Taken(Exception):
    """The name to be linked exists."""


class FileStore:
    """See `Store`. Several processes may use one folder at once, also over a network file system with locks."""

    def __init__(self, root: Path, *, create: bool = True) -> None:
        self.root = root
        with self._faults():
            if not (root / MARKER).is_file():
                self._found(create)
            check_marker((root / MARKER).read_bytes())
            (root / _TEMPORARY).mkdir(exist_ok=True)
            self._sweep()

    def get(self, key: str) -> bytes:
        with self._faults(), self._open(key) as file:
            return file.read()

    def get_file(self, key: str, path: Path) -> None:
        with self._faults(), self._open(key) as file, new_file(path, size=_size(file)) as copy:
            shutil.copyfileobj(file, copy, _CHUNK)

    def put(self, key: str, data: bytes) -> None:
        self._publish(key, BytesIO(data), os.replace)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        try:
            self._publish(key, BytesIO(data), _link)
        except _Taken:
            return False
        return True

    def put_file(self, key: str, path: Path) -> None:
        with path.open("rb") as source:
            self._publish(key, source, os.replace)

    def exists(self, key: str) -> bool:
        try:
            self.size(key)
        except NotFound:
            return False
        return True

    def size(self, key: str) -> int:
        with self._faults(), self._open(key) as file:
            return _size(file)

    def list(self, prefix: str) -> list[str]:
        check_prefix(prefix, may_be_empty=True)
        folder = self.root / prefix.rpartition("/")[0]
        with self._faults():
            keys = [key for key in self._walk(folder) if key.startswith(prefix)]
            self._require_marker()
        return sorted(keys)

    def delete(self, prefix: str) -> None:
        check_prefix(prefix, may_be_empty=False)
        with self._faults():
            for key in self.list(prefix):
                path = self.root / key
                path.unlink(missing_ok=True)
                self._remove_empty(path.parent)

    def _open(self, key: str) -> BinaryIO:
        try:
            return (self.root / check_key(key)).open("rb")
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            self._require_marker()
            raise NotFound(key) from None

    def _publish(self, key: str, source: IO[bytes], place: Callable[[Path, Path], None]) -> None:
        """Copy `source` to a temporary file, flush it to the disk, and give it its name in one step."""
        target = self.root / check_key(key)
        with self._faults():
            self._require_marker()
            if place is _link and target.exists():
                raise _Taken
            with self._temporary() as (temporary, file):
                shutil.copyfileobj(source, file, _CHUNK)
                file.flush()
                os.fsync(file.fileno())
                self._place(temporary, target, place)
            self._require_marker()

    def _place(self, temporary: Path, target: Path, place: Callable[[Path, Path], None]) -> None:
        """A folder may be removed by a `delete` between its making and its use: then it is made again."""
        for remaining in (2, 1, 0):
            try:
                self._make_folder(target.parent)
                place(temporary, target)
                _sync_folder(target.parent)
            except FileNotFoundError:
                if not remaining:
                    raise
            else:
                return

    @contextmanager
    def _temporary(self) -> Iterator[tuple[Path, BinaryIO]]:
        """A new file under a lock that dies with this process, so that others can tell it from a dead one's."""
        while True:
            path = self.root / _TEMPORARY / secrets.token_hex(8)
            with path.open("x+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                if os.fstat(file.fileno()).st_nlink == 0:  # swept before it was locked
                    continue
                try:
                    yield path, file
                finally:
                    path.unlink(missing_ok=True)
                return

    def _sweep(self) -> None:
        for path in (self.root / _TEMPORARY).iterdir():
            with suppress(FileNotFoundError, BlockingIOError, PermissionError), path.open("r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()

    def _make_folder(self, folder: Path) -> None:
        """Make `folder` and its parents, but never the store's root, which may be a mount that is away."""
        if folder.is_dir():
            return
        if folder == self.root:
            self._require_marker()
        self._make_folder(folder.parent)
        with suppress(FileExistsError):
            folder.mkdir()
            _sync_folder(folder.parent)

    def _remove_empty(self, folder: Path) -> None:
        while folder != self.root:
            try:
                folder.rmdir()
            except FileNotFoundError:
                pass
            except OSError as error:
                if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                    return
                raise
            folder = folder.parent

    def _walk(self, folder: Path) -> Iterator[str]:
        for base, folders, files in os.walk(folder, onerror=_raise_unless_missing):
            if Path(base) == self.root:
                folders[:] = [name for name in folders if name != _TEMPORARY]
                files = [name for name in files if name != MARKER]
            yield from ((Path(base) / name).relative_to(self.root).as_posix() for name in files)

    def _require_marker(self) -> None:
        if not (self.root / MARKER).is_file():
            raise Retry(f"the store {self.root} has vanished: {MARKER} is not there; is its disk mounted?")

    def _found(self, create: bool) -> None:
        """Make a new store, in a folder that is new or empty."""
        if not create:
            self._require_marker()
        self.root.mkdir(parents=True, exist_ok=True)
        others = sorted(set(os.listdir(self.root)) - {MARKER, _TEMPORARY, "lost+found"})
        if others and not (self.root / MARKER).is_file():
            raise InvalidInput(
                f"the folder {self.root} holds {others[0]!r} but no {MARKER}, so it is not a store; "
                "name a new or an empty folder",
                field=URL_FIELD,
            )
        (self.root / _TEMPORARY).mkdir(exist_ok=True)
        with self._temporary() as (temporary, file):
            file.write(MARKER_DATA)
            file.flush()
            os.fsync(file.fileno())
            with suppress(_Taken):
                _link(temporary, self.root / MARKER)
        _sync_folder(self.root)

    @contextmanager
    def _faults(self) -> Iterator[None]:
        """Turn what the operating system says into what the caller should do."""
        try:
            yield
        except (FileExistsError, NotADirectoryError) as error:
            raise InvalidInput(f"{error.filename} is not a folder", field=URL_FIELD) from error
        except PermissionError as error:
            where = f"{self.root} may not be used by user {os.geteuid()} ({error.strerror}: {error.filename})"
            raise InvalidInput(where, field=URL_FIELD) from error
        except OSError as error:
            where = f" at {error.filename}" if error.filename else ""
            raise Retry(f"the store {self.root} failed{where}: {error.strerror or error}") from error


def _link(temporary: Path, target: Path) -> None:
    try:
        os.link(temporary, target)
    except FileExistsError:
        raise _Taken from None
    except OSError as error:
        if error.errno in _NO_LINKS:
            why = f"the file system of {target.parent} has no hard links, which a store needs"
            raise InvalidInput(why, field=URL_FIELD) from error
        raise


def _size(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _raise_unless_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error
