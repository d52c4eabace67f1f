"""Rows and checkpoints from where they lie: a path, `file://`, `s3://`, or a hub. Source in, rows or files out."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TextIO

from soda_jobs.errors import InvalidInput, Retry

Rows = Iterator[tuple[str, dict[str, Any]]]

_SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F]")
MODEL_FILES: Final = ("*.json", "*.jsonl", "*.safetensors", "*.model", "*.txt", "*.jinja")


def read_source(
    source: str,
    *,
    work: Path,
    kind: str = "auto",
    config: str | None = None,
    split: str = "train",
    revision: str | None = None,
) -> Rows:
    """(where it stands, row) for each row of a source; `work` is a folder for downloads.

    A path may end in .jsonl, .json (one list, or lines), .parquet, each of the text ones also with .gz; `kind`
    (jsonl or parquet) overrides the ending. `hf:owner/dataset` goes through the `datasets` library with
    `config`, `split` and `revision`. Raises InvalidInput for what is not there or cannot be read, Retry when a
    store or hub is away.
    """
    if source.startswith("hf:"):
        yield from _hub_rows(source.removeprefix("hf:"), config, split, revision)
        return
    path = local_path(source, work)
    reader = _READERS.get(kind) or _by_ending(path)
    yield from reader(path)


def local_path(source: str, work: Path) -> Path:
    """The file of a source on this machine; an S3 object is fetched into `work` first."""
    if source.startswith("s3://"):
        folder, _, key = source.rpartition("/")
        work.mkdir(parents=True, exist_ok=True)
        return _fetch(folder, key, work / key)
    path = Path(source.removeprefix("file://"))
    if not path.is_file():
        what = "is a folder, not a file" if path.is_dir() else "is not there"
        raise InvalidInput(f"the file {path} {what}", field="source")
    return path


def _fetch(url: str, key: str, path: Path) -> Path:
    from soda_jobs.store import NotFound

    try:
        _open(url).get_file(key, path)
    except NotFound as error:
        raise InvalidInput(f"the object {url}/{key} is not there", field="source") from error
    return path


def is_in_bucket(url: str, *, folder: bool) -> bool:
    """Whether an `s3://` object, or anything below an `s3://` prefix, is there."""
    if folder:
        return bool(_open(url).list(""))
    parent, _, key = url.rpartition("/")
    return bool(_open(parent).exists(key))


def _open(url: str) -> Any:
    """The bucket that a source names, on the server that holds the run's artifacts."""
    from soda_jobs.settings import StoreSettings, store_from_env
    from soda_jobs.store import open_store

    ours = store_from_env() if "SODA_STORE" in os.environ else StoreSettings(url)
    there = replace(ours, url=url)
    return open_store(
        there.url,
        endpoint=there.endpoint,
        region=there.region,
        path_style=there.path_style,
        ca_file=there.ca_file,
        create=False,
    )


def _by_ending(path: Path) -> Callable[[Path], Rows]:
    name = path.name.removesuffix(".gz")
    reader = next((reader for ending, reader in _ENDINGS.items() if name.endswith(ending)), None)
    if reader is None:
        raise InvalidInput(f"{path.name} ends in none of {', '.join(_ENDINGS)}; give the format", field="source")
    return reader


def _open_text(path: Path) -> TextIO:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8")
    return path.open(encoding="utf-8")


def _json_lines(path: Path) -> Rows:
    try:
        with _open_text(path) as file:
            for number, line in enumerate(file, start=1):
                where = f"{path} line {number}"
                if line.strip():
                    yield where, _object(_parse(line, where), where)
    except (gzip.BadGzipFile, EOFError, UnicodeDecodeError) as error:
        raise InvalidInput(f"cannot be read ({error})", field=str(path)) from error


def _json_list(path: Path) -> Rows:
    """A file that is one list of rows, as the methods' released samples are; or lines after all."""
    with _open_text(path) as file:
        if not file.read(4096).lstrip().startswith("["):
            yield from _json_lines(path)
            return
        file.seek(0)
        rows = _parse(file.read(), str(path))
    for number, row in enumerate(rows, start=1):
        yield f"{path} row {number}", _object(row, f"{path} row {number}")


def _parse(text: str, where: str) -> Any:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise InvalidInput(f"is not JSON ({error})", field=where) from error
    if _SURROGATE.search(text):  # half a character, cut off by whoever wrote the file: UTF-8 cannot hold it
        value = json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
    return value


def _object(row: Any, where: str) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise InvalidInput(f"is {type(row).__name__}, not an object", field=where)
    return row


def _parquet(path: Path) -> Rows:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.ParquetFile(path)
        number = 0
        for batch in table.iter_batches():
            for row in batch.to_pylist():
                number += 1
                yield f"{path} row {number}", {key: value for key, value in row.items() if value is not None}
    except pyarrow.ArrowInvalid as error:
        raise InvalidInput(f"is not a Parquet file ({error})", field=str(path)) from error


_READERS: Final[dict[str, Callable[[Path], Rows]]] = {"jsonl": _json_lines, "parquet": _parquet}
_ENDINGS: Final[dict[str, Callable[[Path], Rows]]] = {
    ".jsonl": _json_lines,
    ".json": _json_list,
    ".parquet": _parquet,
}


def _hub_rows(dataset: str, config: str | None, split: str, revision: str | None) -> Rows:
    import datasets
    from huggingface_hub.errors import HfHubHTTPError

    try:
        rows = datasets.load_dataset(dataset, config, split=split, revision=revision)
    except (datasets.exceptions.DatasetNotFoundError, ValueError) as error:
        raise InvalidInput(f"hf:{dataset} cannot be loaded: {_first_line(error)}", field="source") from error
    except (HfHubHTTPError, ConnectionError, TimeoutError) as error:
        raise Retry(f"the dataset hub did not give hf:{dataset}: {_first_line(error)}") from error
    for number, row in enumerate(rows, start=1):
        yield f"hf:{dataset} row {number}", {key: value for key, value in row.items() if value is not None}


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]


# -- models ------------------------------------------------------------------------------------------------------


def copy_model(source: str, *, work: Path, out: Path, revision: str | None = None) -> None:
    """Put the checkpoint at `source` (a folder, an `s3://` prefix, or a hub id at `revision`) into folder `out`.

    Raises InvalidInput when there is none, Retry when a store or hub is away.
    """
    if source.startswith("s3://"):
        _copy_bucket(source, out)
    elif source.startswith(("/", ".", "file://")):
        _copy_folder(Path(source.removeprefix("file://")), out)
    else:
        _copy_hub(source, revision, work, out)
    if not (out / "config.json").is_file():
        raise InvalidInput(f"{source} has no config.json, so it is not a checkpoint", field="source")


def _copy_folder(folder: Path, out: Path) -> None:
    if not folder.is_dir():
        raise InvalidInput(f"the folder {folder} is not there", field="source")
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if path.is_file() and not any(part.startswith(".") for part in inside.parts):
            target = out / inside
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)


def _copy_bucket(url: str, out: Path) -> None:
    store = _open(url)
    for key in store.list(""):
        target = out / key
        target.parent.mkdir(parents=True, exist_ok=True)
        store.get_file(key, target)


def _copy_hub(model: str, revision: str | None, work: Path, out: Path) -> None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        folder = snapshot_download(
            model, revision=revision, local_dir=work / "hub", allow_patterns=list(MODEL_FILES)
        )
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
        name = model if revision is None else f"{model} at revision {revision}"
        raise InvalidInput(f"the hub has no model {name}: {_first_line(error)}", field="source") from error
    except (LocalEntryNotFoundError, HfHubHTTPError, ConnectionError, TimeoutError) as error:
        raise Retry(f"the model hub did not give {model}: {_first_line(error)}") from error
    _copy_folder(Path(folder), out)
