"""The file of the CustomResourceDefinition, generated from the models.

python -m soda_operator.crd            write it
python -m soda_operator.crd --check    exit 1 when it is stale
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from soda_jobs.generated import keep
from soda_operator.crd.definition import NAME, render

TARGET: Final = Path("crds") / f"{NAME}.yaml"


def main(arguments: list[str]) -> int:
    return keep("soda_operator.crd", {TARGET: render()}, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
