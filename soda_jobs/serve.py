"""A model server: fetch the checkpoint it serves, then become the engine's own process.

    SODA_SERVICE  JSON {name, engine, model, artifact, options} (made by plan.py)

Run as `python -m soda_jobs serve --port N [--host H]`.
"""

from __future__ import annotations

import json
import os
import shutil
import sys

from soda_jobs.errors import InvalidInput
from soda_jobs.log import event
from soda_jobs.models.engines import server_argv
from soda_jobs.parent import die_with_parent
from soda_jobs.settings import open_artifacts, state_folder, store_from_env


def main(port: int, host: str) -> None:
    """Never returns: the process becomes the engine."""
    die_with_parent()
    task = json.loads(os.environ["SODA_SERVICE"])
    model = task["model"] or task["engine"]
    name = model
    if task["artifact"] is not None:
        artifacts = open_artifacts(store_from_env(), state_folder())
        manifest = artifacts.find(task["artifact"])
        if manifest is None:
            raise InvalidInput(f"the checkpoint {task['artifact']} of {task['name']} is not in the store")
        model, name = str(artifacts.fetch(manifest)), task["name"]
    options = {**task["options"], "host": host}
    argv = server_argv(task["engine"], model_path_or_id=model, port=port, name=name, options=options)
    program = sys.executable if argv[0] == "python" else shutil.which(argv[0])
    if program is None:
        raise InvalidInput(
            f"the engine {task['engine']} needs the program {argv[0]!r}, which is not installed here"
        )
    event("server_starting", name=task["name"], argv=" ".join(argv))
    os.execv(program, [program, *argv[1:]])
