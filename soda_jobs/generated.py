"""Files that are made from the code: written, or only checked. One command line for every generator.

python -m MODULE            write them
python -m MODULE --check    exit 1 when one is stale
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path


def keep(module: str, files: Mapping[Path, str], arguments: Sequence[str]) -> int:
    """Write what differs, or with `--check` say so; the exit code. `module` is what a person runs."""
    if list(arguments) not in ([], ["--check"]):
        sys.stderr.write(f"{' '.join(arguments)} is not allowed; use --check or nothing\n")
        return 64
    stale = [path for path, text in files.items() if not (path.is_file() and path.read_text("utf-8") == text)]
    for path in stale:
        if arguments:
            sys.stderr.write(f"{path} is stale; run python -m {module}\n")
        else:
            path.write_text(files[path], encoding="utf-8")
    return 1 if arguments and stale else 0
