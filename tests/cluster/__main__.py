"""`python -m tests.cluster up|down|status`: a node that stays until told to go. Tests use it while it is up."""

from __future__ import annotations

import argparse
import sys
import time

import pytest

from tests.cluster.node import Node, alone, missing


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    parser.add_argument("verb", choices=["up", "down", "status"])
    verb = {"up": up, "down": down, "status": status}[parser.parse_args().verb]
    if reason := missing():
        print(f"{reason[0].upper()}{reason[1:]}.", file=sys.stderr)
        return 1
    try:
        return verb(Node(detached=True))
    except (RuntimeError, TimeoutError, pytest.skip.Exception) as error:
        print(error, file=sys.stderr)
        return 1


def up(node: Node) -> int:
    """Starts the node unless it is up, and prints what a shell needs to use it."""
    with alone(seconds=1):
        if not (node.kept.exists() and node.running()):
            began = time.monotonic()
            node.start()
            node.kept.touch()
            print(f"Ready after {time.monotonic() - began:.1f} s.", file=sys.stderr)
    print(f"export KUBECONFIG={node.kubeconfig}")
    return 0


def down(node: Node) -> int:
    with alone(seconds=1):
        node.stop()
    return 0


def status(node: Node) -> int:
    """0 when the node is up."""
    names = node.processes.names()
    for name in names:
        pid = node.processes.pid(name)
        print(
            f"{name:24} {f'process {pid}' if pid else 'ended, see ' + str(node.processes.folder / name) + '.log'}"
        )
    if not node.running():
        print("The node is not up: python -m tests.cluster up.")
        return 1
    print(f"KUBECONFIG={node.kubeconfig}")
    print(f"Pods reach a server on this machine at {node.address}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
