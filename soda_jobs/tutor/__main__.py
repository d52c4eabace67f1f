"""`python -m soda_jobs.tutor --port 8000`: serve the tutor until told to stop."""

from __future__ import annotations

import argparse

from aiohttp import web

from soda_jobs.log import event
from soda_jobs.tutor.server import app


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m soda_jobs.tutor", description="Serve the tutor over HTTP.")
    parser.add_argument("--port", type=int, required=True, help="TCP port to listen on")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    options = parser.parse_args()
    event("tutor_started", host=options.host, port=options.port)
    web.run_app(app(), host=options.host, port=options.port, print=None, access_log=None)


if __name__ == "__main__":
    main()
