"""The commands that only run inside a job: a stage, a model server, and what a cluster's run needs besides."""

from __future__ import annotations

from argparse import Namespace


def stage(arguments: Namespace) -> int:
    from soda_jobs import runner

    return runner.main()


def serve(arguments: Namespace) -> int:
    from soda_jobs import serve as server

    server.main(arguments.port, arguments.host)
    return 0


def preflight(arguments: Namespace) -> int:
    from soda_jobs.cluster.preflight import main

    return main()


def publish(arguments: Namespace) -> int:
    from soda_jobs.cluster.publish import main

    return main()


def cleanup(arguments: Namespace) -> int:
    from soda_jobs.cluster.cleanup import main

    return main()
