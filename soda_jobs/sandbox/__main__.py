"""`python -m soda_jobs.sandbox --port 0`: serve the sandbox. `--warm`: only fill the compile caches."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys

from soda_jobs.errors import SodaError
from soda_jobs.log import event
from soda_jobs.parent import die_with_parent
from soda_jobs.sandbox import golang, kernel, precompiled, tools
from soda_jobs.sandbox.gcc import CPP_FLAGS
from soda_jobs.sandbox.server import serve


def main(words: list[str] | None = None) -> int:
    arguments = _parser().parse_args(words)
    die_with_parent()
    if arguments.warm:
        if tools.find("go") is not None:
            golang.warm()
        if tools.find("g++") is not None:
            precompiled.warm(CPP_FLAGS)
        return 0
    kernel.hide_from_programs()
    try:
        asyncio.run(
            serve(
                port=arguments.port,
                host=arguments.host,
                socket_path=arguments.socket,
                workers=arguments.workers,
                require_isolation=arguments.require_isolation,
                require_gvisor=arguments.require_gvisor,
            )
        )
    except SodaError as error:
        event("sandbox_failed", reason=str(error))
        return error.exit_code
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m soda_jobs.sandbox", description=__doc__)
    parser.add_argument("--port", type=int, default=0, metavar="N", help="TCP port; 0 takes a free one")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--socket", metavar="PATH", help="listen on this Unix socket instead")
    parser.add_argument(
        "--workers", type=int, default=len(os.sched_getaffinity(0)), help="programs at once (default: CPUs)"
    )
    parser.add_argument(
        "--require-isolation", action="store_true", help="end with exit code 77 where a wall is missing"
    )
    parser.add_argument(
        "--require-gvisor", action="store_true", help="end with exit code 77 where the kernel is not gVisor's"
    )
    parser.add_argument("--warm", action="store_true", help="only fill the compile caches, for an image")
    return parser


if __name__ == "__main__":
    sys.exit(main())
