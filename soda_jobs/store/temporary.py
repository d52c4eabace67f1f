"""Local files that appear whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from soda_jobs.errors import Retry


@contextmanager
def new_file(path: Path, *, size: int) -> Iterator[BinaryIO]:
    """A file to write; at the end, if it has `size` bytes, it is flushed to the disk and becomes `path`."""
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}.part")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            written = os.fstat(file.fileno()).st_size
        if written != size:
            raise Retry(f"{path.name} came with {written} bytes of {size}")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
