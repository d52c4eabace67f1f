"""The `soda` command. It parses first and imports after: --help takes no torch, no boto3 and no network."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from soda_jobs import __version__
from soda_jobs.errors import SodaError

STORE_HELP = "artifact store, a folder or s3://bucket/prefix (default: spec.storage of the file, else .soda/store)"
RUN_HELP = "a run's YAML file, or the name of a run"
INSIDE = {
    "preflight": "check the run SODA_RUN, pin its sources, find what is committed",
    "publish": "write the report of the run SODA_RUN",
    "cleanup": "delete what only the run SODA_RUN uses",
}


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="soda",
        description="Distil a strong code model's skill into a small one, from one DistillationRun.",
        epilog="exit codes: 0 done, 64 your input, 65 gave up, 70 our bug, 75 try again, 77 sandbox not isolated",
    )
    top.add_argument("--version", action="version", version=f"soda {__version__}")
    commands = top.add_subparsers(metavar="COMMAND", required=True)

    run = _command(commands, "run", "soda_jobs.cli.run:run", "run a distillation on this machine, or resume it")
    run.add_argument("file", metavar="FILE", help="the DistillationRun, as for kubectl apply")
    run.add_argument("--store", metavar="URL", help=STORE_HELP)

    validate = _command(commands, "validate", "soda_jobs.cli.look:validate", "say every mistake in a file")
    validate.add_argument("file", metavar="FILE")
    _output(validate)

    plan = _command(
        commands, "plan", "soda_jobs.cli.look:plan", "show the stages, what is reused and what it costs"
    )
    plan.add_argument("file", metavar="FILE")
    plan.add_argument("--store", metavar="URL", help=STORE_HELP)
    _output(plan)

    status = _command(commands, "status", "soda_jobs.cli.look:status", "show where a run stands")
    status.add_argument("run", metavar="RUN", help=RUN_HELP)
    status.add_argument("--store", metavar="URL", help=STORE_HELP)
    _output(status)

    report = _command(
        commands, "report", "soda_jobs.cli.look:report", "write a run's report again, print its path"
    )
    report.add_argument("run", metavar="RUN", help=RUN_HELP)
    report.add_argument("--store", metavar="URL", help=STORE_HELP)
    _output(report)

    logs = _command(commands, "logs", "soda_jobs.cli.look:logs", "print the events of a run's stages and servers")
    logs.add_argument("run", metavar="RUN", help=RUN_HELP)
    logs.add_argument("stage", metavar="STAGE", nargs="?", help="only this stage, or service-NAME")
    logs.add_argument("-f", "--follow", action="store_true", help="go on as new lines are written")

    execute = _command(commands, "execute", "soda_jobs.cli.programs:execute", "run programs in the sandbox")
    execute.add_argument(
        "--in", dest="source", required=True, metavar="FILE", help="JSONL: id, language, code, tests"
    )
    execute.add_argument(
        "--out", dest="target", required=True, metavar="FILE", help="JSONL: id, verdict, detail, …"
    )
    execute.add_argument("--sandbox", metavar="URL", help="a running sandbox (default: start one here)")

    evaluate = _command(
        commands, "evaluate", "soda_jobs.cli.programs:evaluate", "score completions of a benchmark"
    )
    evaluate.add_argument("--benchmark", required=True, metavar="NAME", help="humaneval, …")
    evaluate.add_argument("--completions", required=True, metavar="FILE", help="JSONL: task_id, completion")
    evaluate.add_argument("--source", metavar="FILE", help="the benchmark's own file (default: the packaged one)")
    evaluate.add_argument("--out", metavar="FILE", help="results of each sample (default: FILE_results.jsonl)")
    evaluate.add_argument(
        "-k", dest="pass_k", default="1", metavar="K[,K...]", help="pass@k to report (default 1)"
    )
    evaluate.add_argument("--timeout", type=float, default=10.0, metavar="SECONDS", help="for each program (10)")
    evaluate.add_argument("--sandbox", metavar="URL", help="a running sandbox (default: start one here)")
    _output(evaluate)

    _command(commands, "stage", "soda_jobs.cli.inside:stage", "inside a job: run the stage SODA_STAGE names")
    serve = _command(
        commands, "serve", "soda_jobs.cli.inside:serve", "inside a job: serve the model SODA_SERVICE names"
    )
    serve.add_argument("--port", type=int, required=True, metavar="N", help="port to listen on")
    serve.add_argument("--host", default="127.0.0.1", metavar="H", help="address to listen on (127.0.0.1)")
    for name, text in INSIDE.items():
        _command(commands, name, f"soda_jobs.cli.inside:{name}", f"inside a job: {text}")
    return top


def _command(commands: argparse._SubParsersAction, name: str, function: str, text: str) -> argparse.ArgumentParser:  # type: ignore[type-arg]
    command: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=text[0].upper() + text[1:] + "."
    )
    command.set_defaults(function=function)
    return command


def _output(command: argparse.ArgumentParser) -> None:
    command.add_argument("--output", choices=("text", "json"), default="text", help="how to print (default text)")


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    module, _, name = arguments.function.partition(":")
    try:
        return int(getattr(importlib.import_module(module), name)(arguments))
    except SodaError as error:
        print(f"soda: {error}", file=sys.stderr)
        return int(error.exit_code)
    except KeyboardInterrupt:
        print("soda: stopped; the same command goes on from here", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 0


if __name__ == "__main__":
    sys.exit(main())
