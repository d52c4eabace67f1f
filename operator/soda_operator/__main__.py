"""`python -m soda_operator`: the operator, until SIGTERM."""

from __future__ import annotations

import logging
import os
import sys

import kopf

from soda_jobs.errors import SodaError
from soda_operator import config, handlers


def main() -> int:
    """Settings are read before anything is watched, so that a mistake in them is one sentence and an exit code."""
    try:
        settings = config.read(os.environ)
    except SodaError as error:
        sys.stderr.write(f"soda-operator: {error}\n")
        return int(error.exit_code)
    kopf.configure(log_format=kopf.LogFormat.JSON if not sys.stderr.isatty() else kopf.LogFormat.PLAIN)
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)
    where = {"namespaces": [settings.namespace]} if settings.namespace else {"clusterwide": True}
    # An identity of our own: kopf would ask for the user's name, and 65532 has none.
    kopf.run(standalone=True, identity="soda", **where)  # type: ignore[arg-type]
    return 0


__all__ = ["handlers", "main"]

if __name__ == "__main__":
    sys.exit(main())
