"""The two commands that only run inside a job: a stage, and a model server."""

from __future__ import annotations

from argparse import Namespace


def stage(arguments: Namespace) -> int:
    from soda_jobs import runner

    return runner.main()


def serve(arguments: Namespace) -> int:
    from soda_jobs import serve as server

    server.main(arguments.port)
    return 0
