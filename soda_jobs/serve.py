"""A model server: fetch the checkpoint it serves, then become the engine's own process.

    SODA_SERVICE  JSON {name, engine, model, artifact, options} (made by plan.py)

Run as `python -m soda_jobs serve --port N [--host H]`.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

from soda_jobs.errors import InvalidInput
from soda_jobs.log import event
from soda_jobs.models.engines import server_argv
from soda_jobs.parent import die_with_parent, take_family_along
from soda_jobs.settings import open_artifacts, state_folder, store_from_env


def main(port: int, host: str) -> None:
    """Never returns: the process becomes the engine."""
    die_with_parent()
    take_family_along()
    task = json.loads(os.environ["SODA_SERVICE"])
    role = task["name"].partition("-")[0]
    model = task["model"] or task["engine"]
    name = model
    if task["artifact"] is not None:
        artifacts = open_artifacts(store_from_env(), state_folder())
        manifest = artifacts.find(task["artifact"])
        if manifest is None:
            raise InvalidInput(f"the checkpoint {task['artifact']} of {task['name']} is not in the store")
        model, name = str(artifacts.fetch(manifest)), task["name"]
    elif task["model"] is not None and task["engine"] != "tutor":
        model = _weights(task["model"], role)
    options = {**task["options"], "host": host}
    argv = server_argv(task["engine"], model_path_or_id=model, port=port, name=name, options=options)
    program = sys.executable if argv[0] == "python" else _find(argv[0])
    if program is None:
        raise InvalidInput(
            f"the engine {task['engine']} needs the program {argv[0]!r}, which is not installed here; install it "
            f"in an environment of its own and put its folder on PATH, or use another spec.{role}.server.engine"
        )
    event("server_starting", name=task["name"], argv=" ".join(argv))
    os.execv(program, [program, *argv[1:]])


def _weights(model: str, role: str) -> str:
    """What the engine is told to load: a bucket's files are fetched first, a hub id is the engine's to fetch."""
    if model.startswith("s3://"):
        from soda_jobs.reading import copy_model

        folder = state_folder() / "models" / role
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        copy_model(model, work=folder, out=folder)
        return str(folder)
    if model.startswith(("/", ".")) and not Path(model, "config.json").is_file():
        raise InvalidInput(
            f"the folder {model} has no config.json, so it is not a checkpoint", field=f"spec.{role}.model"
        )
    return model


def _find(program: str) -> str | None:
    """Beside this interpreter first: an environment need not be activated to be used."""
    return shutil.which(program, path=str(Path(sys.executable).parent)) or shutil.which(program)
