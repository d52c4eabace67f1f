"""The `soda` command. It parses first and imports after: --help takes no torch, no boto3 and no network."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from soda_jobs import __version__
from soda_jobs.errors import SodaError, disk_fault

STORE_HELP = "artifact store, a folder or s3://bucket/prefix (default: spec.storage of the file, else .soda/store)"
RUN_HELP = "the name of a run; on this machine also its YAML file"
# Commands on a run, wherever it is: `soda_jobs.cli.look` has them for this machine, `cli.remote` for a cluster.
ON_A_RUN = {
    "status": "show where a run stands",
    "watch": "follow a run until it is over; exit code 0 succeeded, 1 failed, 3 cancelled or stopped",
    "explain": "say in a paragraph what a run does or waits for, and what to do next",
    "logs": "print the events of a run's stages and servers; in a cluster the newest attempt first",
    "report": "write a run's report again, or fetch it from a cluster's store; print its path",
}
CLUSTER_ONLY = {
    "suspend": "stop a run in a cluster; what is committed stays",
    "resume": "let a suspended run go on",
    "cancel": "end a run in a cluster; what is committed stays",
    "retry": "let a run that failed or was cancelled go on",
}
INSIDE = {
    "preflight": "check the run SODA_RUN, pin its sources, find what is committed",
    "publish": "write the report of the run SODA_RUN",
    "cleanup": "delete what only the run SODA_RUN uses",
}


def parser(program: str = "soda") -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog=program,
        description="Distil a strong code model's skill into a small one, from one DistillationRun.",
        epilog="exit codes: 0 done, 64 your input, 65 gave up, 70 our bug, 75 try again, 77 sandbox not isolated",
    )
    top.add_argument("--version", action="version", version=f"soda {__version__}")
    commands = top.add_subparsers(metavar="COMMAND", required=True)

    run = _command(commands, "run", "soda_jobs.cli.run:run", "run a distillation on this machine, or resume it")
    run.add_argument("file", metavar="FILE", help="the DistillationRun, as for kubectl apply")
    run.add_argument("--store", metavar="URL", help=STORE_HELP)

    validate = _command(commands, "validate", "soda_jobs.cli.look:validate", "say every mistake in a file")
    validate.add_argument("file", metavar="FILE", help="the DistillationRun, as for kubectl apply")
    _output(validate)

    plan = _command(
        commands, "plan", "soda_jobs.cli.look:plan", "show the stages, what is reused and what it costs"
    )
    plan.add_argument("file", metavar="FILE", help="the DistillationRun, as for kubectl apply")
    plan.add_argument("--store", metavar="URL", help=STORE_HELP)
    _output(plan)

    _run_commands(commands)
    _compare(commands)

    execute = _command(commands, "execute", "soda_jobs.cli.programs:execute", "run programs in the sandbox")
    execute.add_argument(
        "--in", dest="source", required=True, metavar="FILE", help="JSONL: id, language, code, tests"
    )
    execute.add_argument(
        "--out", dest="target", required=True, metavar="FILE", help="JSONL: id, verdict, detail, …"
    )
    execute.add_argument("--sandbox", metavar="URL", help="a running sandbox (default: start one here)")
    execute.add_argument(
        "--runs", type=int, default=1, metavar="N", help="run each program N times; flaky when they disagree"
    )
    execute.add_argument("--no-cache", action="store_true", help="run programs whose verdict is known already")

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
    evaluate.add_argument(
        "--protocol",
        choices=("observe", "official", "both"),
        default="observe",
        help="how a pass is proved: judged outside, as by the benchmark's harness, or both, compared (observe)",
    )
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


def _run_commands(commands: argparse._SubParsersAction) -> None:  # type: ignore[type-arg]
    for name, text in ON_A_RUN.items():
        command = _command(commands, name, f"soda_jobs.cli.look:{name}", text)
        command.add_argument("run", metavar="RUN", help=RUN_HELP)
        if name == "logs":
            command.add_argument("stage", metavar="STAGE", nargs="?", help="only this stage, or service-NAME")
            command.add_argument("-f", "--follow", action="store_true", help="go on as new lines are written")
        else:
            command.add_argument("--store", metavar="URL", help=STORE_HELP)
            _output(command)
        if name == "watch":
            command.add_argument(
                "--interval", type=float, default=2.0, metavar="SECONDS", help="between looks (2)"
            )
        if name == "report":
            command.add_argument("--endpoint", metavar="URL", help="of the S3 server, as this machine reaches it")
        _cluster(command, name)
    for name, text in CLUSTER_ONLY.items():
        command = _command(commands, name, "soda_jobs.cli.look:cluster_only", text)
        command.add_argument("run", metavar="RUN", help="the name of a run")
        _cluster(command, name)


def _compare(commands: argparse._SubParsersAction) -> None:  # type: ignore[type-arg]
    command = _command(
        commands, "compare", "soda_jobs.cli.compare:run", "set runs side by side, with significance marks"
    )
    command.add_argument(
        "runs", metavar="RUN", nargs="*", help="a run of the store or its report.json; @ROUND picks a round"
    )
    command.add_argument("--baseline", metavar="ROW", help="the row the others are tested against (the first)")
    command.add_argument("--base", metavar="ROW", help="the untouched student: also give gains over this row")
    command.add_argument(
        "--metric", default="pass@1", metavar="NAME", help="pass@1, pass@10, model_score (pass@1)"
    )
    command.add_argument("--published", metavar="TABLE", help="set a paper's rows below: soda-1, ssd, …")
    command.add_argument("--no-intervals", action="store_true", help="leave out the bootstrap intervals")
    command.add_argument("--store", metavar="URL", help="where the runs are (default .soda/store)")
    formats = ("terminal", "markdown", "latex", "html", "json")
    command.add_argument("--output", choices=formats, default=formats[0], help="how to print (default terminal)")


def _cluster(command: argparse.ArgumentParser, verb: str) -> None:
    """Options that choose a cluster; any of them means that the run is in one."""
    command.set_defaults(remote=f"soda_jobs.cli.remote:{verb}", verb=verb)
    group = command.add_argument_group("a run in a cluster (always so with `kubectl soda`)")
    group.add_argument("--cluster", action="store_true", help="in the cluster and namespace kubectl uses now")
    group.add_argument("-n", "--namespace", metavar="NAME", help="in this namespace")
    group.add_argument("--context", metavar="NAME", help="in the cluster of this kubeconfig context")
    group.add_argument("--kubeconfig", metavar="FILE", help="in the cluster of this kubeconfig file")


def _command(commands: argparse._SubParsersAction, name: str, function: str, text: str) -> argparse.ArgumentParser:  # type: ignore[type-arg]
    command: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=text[0].upper() + text[1:] + "."
    )
    command.set_defaults(function=function)
    return command


def _output(command: argparse.ArgumentParser) -> None:
    command.add_argument("--output", choices=("text", "json"), default="text", help="how to print (default text)")


def main(argv: Sequence[str] | None = None, *, program: str = "soda") -> int:
    arguments = parser(program).parse_args(argv)
    arguments.program, arguments.options = program, _cluster_options(arguments)
    in_cluster = "remote" in arguments and (program != "soda" or arguments.options)
    module, _, name = (arguments.remote if in_cluster else arguments.function).partition(":")
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
    except OSError as error:
        full = disk_fault(error)
        if full is None:
            raise
        print(f"soda: {full}", file=sys.stderr)
        return int(full.exit_code)


def kubectl_plugin() -> int:
    """`kubectl soda ...`: kubectl finds the program `kubectl-soda` on the PATH."""
    return main(program="kubectl soda")


def _cluster_options(arguments: argparse.Namespace) -> str:
    """The options that choose a cluster, as they were given."""
    if "remote" not in arguments:
        return ""
    given = {name: getattr(arguments, name) for name in ("namespace", "context", "kubeconfig")}
    words = [f" --{name} {value}" for name, value in given.items() if value is not None]
    return "".join(words) or (" --cluster" if arguments.cluster else "")


if __name__ == "__main__":
    sys.exit(main())
