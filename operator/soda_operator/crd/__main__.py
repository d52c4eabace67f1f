"""The file of the CustomResourceDefinition, generated from the models.

python -m soda_operator.crd            write it
python -m soda_operator.crd --check    exit 1 when it is stale
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from soda_operator.crd.definition import NAME, render

TARGET: Final = Path("crds") / f"{NAME}.yaml"


def main(arguments: list[str]) -> int:
    text = render()
    if arguments == ["--check"]:
        is_fresh = TARGET.is_file() and TARGET.read_text(encoding="utf-8") == text
        if not is_fresh:
            sys.stderr.write(f"{TARGET} is stale; run python -m soda_operator.crd\n")
        return 0 if is_fresh else 1
    if arguments:
        sys.stderr.write(f"{' '.join(arguments)} is not allowed; use --check or nothing\n")
        return 64
    TARGET.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
