"""The launcher's walls, each attacked from inside: as we are, as a user without rights, and in gVisor."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from soda_jobs.sandbox import launch, launched, tree
from soda_jobs.sandbox.jail import Jail
from soda_jobs.sandbox.machine import strongest
from soda_jobs.sandbox.run import find_walls
from soda_jobs.sandbox.watch import Job

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).with_name("launcher")
PLACES = ("here", "unprivileged", "gvisor")
REPEATS = 200
PARTS = ("__init__.py", "errors.py", "log.py", "parent.py", "sandbox")  # what an image holds

# Programs that must do the same whether the interpreter was started for them or copied.
PROGRAMS = {
    "hello": "print('hello')",
    "input": "print(input())\ninput()",
    "arguments": "import sys\nprint(sys.argv, sys.path, sys.executable, sys.prefix, sys.flags, sys.orig_argv)",
    "environment": "import os\nprint(dict(os.environ), os.getcwd(), sorted(os.listdir()))",
    "main": "print(__name__, __file__, __doc__, __package__, __spec__, __cached__, sorted(globals()))",
    "frames": "import sys\nprint(sys._getframe().f_back)\ndef f(n):\n    return f(n + 1)\nf(0)",
    "syntax": "def f(:\n    pass",
    "exit_code": "raise SystemExit(3)",
    "exit_words": "import sys\nprint('x', end='')\nsys.exit('words')",
    "quit": "import atexit\natexit.register(print, 'bye')\nquit(4)",
    "exception": "def f():\n    raise ValueError('no')\nf()",
    "hash": "print(hash('a'), {'b', 'a', 'c'})",
    "addresses": "print(id(object()) > 0)\nimport random\nprint(random.Random(1).random())",
    "abort": "import os\nos.abort()",
    "crash": "import ctypes\nctypes.string_at(0)",
    "kill_itself": "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)",
    "alarm": "import signal\nsignal.alarm(1)\nsignal.pause()",
    "broken_pipe": "import os, sys\nr, w = os.pipe()\nos.close(r)\nos.write(w, b'x')",
    "interrupt": "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nimport time\ntime.sleep(5)",
    "recursion": "import sys\nsys.setrecursionlimit(10 ** 9)\ndef f():\n    f()\nf()",
    "threads": "import threading\nt = threading.Thread(target=print, args=('in',))\nt.start()\nt.join()\n"
               "print(threading.main_thread() is threading.current_thread(), threading.active_count())",
    "processes": "import multiprocessing\nif __name__ == '__main__':\n    with multiprocessing.Pool(2) as pool:\n"
                 "        print(pool.map(abs, [-1, 2]))",
    "spawned": "import multiprocessing\nif __name__ == '__main__':\n    c = multiprocessing.get_context('spawn')\n"
               "    p = c.Process(target=print, args=('out',))\n    p.start()\n    p.join()\n    print(p)",
    "subprocess": "import subprocess, sys\nprint(subprocess.run([sys.executable, '-c', 'import sys, os; print("
                  "sys.path[1:], os.environ.get(\"LD_PRELOAD\")); exit(2)'], capture_output=True, text=True))",
    "orphans": "import os\nif os.fork() == 0:\n    if os.fork() == 0:\n        os._exit(0)\n    os._exit(5)\n"
               "print(os.wait()[1], os.getpid(), os.getppid(), os.getsid(0))",
    "asyncio": "import asyncio\nasync def f():\n    await asyncio.sleep(0)\n    return 5\nprint(asyncio.run(f()))",
    "packages": "import numpy",
    "own_module": "open('other.py', 'w').write('x = 7')\nimport other\nprint(other.x)",
    "limits": "import resource\nprint([resource.getrlimit(i) for i in range(16)])",
    "memory": "x = bytearray(1 << 40)",
    "standard_streams": "import sys\nfor f in (sys.stdin, sys.stdout, sys.stderr):\n    print(f.name, f.encoding, "
                        "f.errors, f.seekable(), f.line_buffering, f.isatty())",
    "typing": "from typing import List\nimport re, typing\nprint(List[int], typing, re.sub('a', 'b', 'a'))",
    "exit_true": "raise SystemExit(True)",
    "exit_256": "raise SystemExit(256)",
    "exit_negative": "import sys\nsys.exit(-1)",
    "exit_huge": "import sys\nsys.exit(10 ** 30)",
    "exit_float": "raise SystemExit(1.5)",
    "exit_none": "raise SystemExit",
    "exit_in_thread": "import threading, sys\nthreading.Thread(target=sys.exit, args=(3,)).start()",
    "interrupted": "raise KeyboardInterrupt",
    "late_objects": "class A:\n    def __init__(self, n):\n        self.n = n\n    def __del__(self):\n        "
                    "print('gone', self.n)\na, b = A(1), A(2)\nb.me = b\nc = [A(3)]",
    "late_thread": "import threading as t, time\nt.Thread(target=lambda: time.sleep(1) or print('a')).start()",
    "daemon_thread": "import threading as t, time\nt.Thread(target=time.sleep, args=(60,), daemon=True).start()",
    "at_exit": "import atexit\n@atexit.register\ndef f():\n    print('x')\n    print(__file__)",
    "at_exit_leaves": "import atexit, os\natexit.register(os._exit, 7)",
    "error_in_thread": "import threading\nthreading.Thread(target=int, args=('x',)).start()",
    "lost_output": "import os\nprint('x')\nos.close(1)",
    "closed_output": "import sys\nprint('x')\nsys.stdout.close()",
    "no_output": "import sys\nsys.stdout = None\nprint('x')",
    "own_output": "import io, sys\nsys.stdout = io.StringIO()\nprint('x')",
    "own_hook": "import sys\nsys.excepthook = lambda *a: print('hook', a[1])\n1 / 0",
    "failing_hook": "import sys\nsys.excepthook = lambda *a: sys.exit(9)\n1 / 0",
    "late_error": "class A:\n    def __del__(self):\n        1 / 0\na = A()",
    "output_of_c": "import ctypes\nctypes.CDLL(None).printf(b'from C')",
    "two_of_it": "import os, sys\nprint('x')\nif os.fork() == 0:\n    sys.exit(5)\nprint(os.wait()[1])",
    "warning": "import warnings\nwarnings.warn('careful')",
    "binary": "import sys\nsys.stdout.buffer.write(bytes(range(256)))",
    "globals": "for name in list(globals()):\n    if name != 'globals':\n        del globals()[name]",
    "modules": "import sys\nsys.modules.clear()",
    "main_again": "import __main__\nprint(__main__.__file__)\nimport main\nprint(main.__name__)",
    "not_utf8": "# coding: latin-1\nprint('\u00e9')",
    "kill_all": "import os, signal\nos.kill(1, signal.SIGKILL)\nos.kill(-1, signal.SIGKILL)",
}  # fmt: skip

REFUSED = (
    *("unshare_user", "unshare_mount", "unshare_pid", "unshare_net", "clone_user", "clone_pid", "setns", "mount"),
    *(
        "remount",
        "umount",
        "pivot_root",
        "chroot",
        "fsopen",
        "open_tree",
        "hostname",
        "ptrace_init",
        "ptrace_self",
    ),
    *("process_vm_readv", "process_vm_writev", "kcmp", "pidfd_getfd", "bpf", "perf", "userfaultfd", "keyctl"),
    *("add_key", "request_key", "io_uring", "memfd", "shmget", "kexec", "init_module", "finit_module"),
    *("open_by_handle", "reboot", "kill_init", "tgkill_init", "limit_init"),
)
SECRETS = ("environ", "mem", "maps", "fd_link", "root/etc", "cwd/", "map_files", "fd/3", "exe")


def wanted_answers(where: str) -> Mapping[str, tuple[str, ...]]:
    """What each call of attack.c must answer."""
    return {
        **{name: ("EPERM",) for name in REFUSED},
        **{f"init_{name}": ("EACCES", "EPERM", "ENOENT") for name in SECRETS},
        "init_mem_write": ("EACCES", "EPERM"),
        "clone3": ("ENOSYS",),
        "x32_getpid": ("ENOSYS",),
        "inet": ("ENETUNREACH",),
        "inet6": ("ENETUNREACH",),
        "netlink": ("EAFNOSUPPORT",),
        "packet": ("EAFNOSUPPORT",),
        "unix": ("ok",),
        "socketpair": ("ok",),
        "clone_plain": ("ok",),
        "write_/x": ("EROFS", "EACCES"),
        "write_/usr/x": ("EROFS", "EACCES"),
        "write_/etc/x": ("EROFS", "EACCES"),
        "write_/dev/x": ("EROFS", "EACCES"),
        "write_/proc/sys/kernel/hostname": ("EROFS", "EACCES", "EPERM", "ENOENT"),
        "device": ("EPERM",),
        "processes_seen": ("2",),
        "descriptors": ("4",),
        "descriptors_from_4": ("0",),
        "environment": ("0",),
        "uid": ("1000",),
        "gid": ("1000",),
        "is_session_leader": ("1",),
        "no_new_privileges": ("1",),
        "seccomp_mode": ("2",),
        "bounding_set": ("0",),
        **{f"capabilities_{name}": ("0",) for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")},
        "limit_files": ("512",),
        "limit_core": ("0",),
        "limit_tasks": ("4096",) if where == "gvisor" else ("256",),  # it counts for all programs at once
        "limit_file_size": (str(64 << 20),),
        "end": ("1",),
    }


@pytest.fixture(scope="session")
def image() -> Iterator[Path]:
    """A folder that every user may read, with the sandbox, its launcher and the attack, as an image holds them."""
    if shutil.which("gcc") is None:
        pytest.skip("no gcc on this machine")
    with tempfile.TemporaryDirectory(prefix="soda-image-") as made:
        folder = Path(made)
        folder.chmod(0o755)
        for name in PARTS:
            source, target = ROOT / "soda_jobs" / name, folder / "soda_jobs" / name
            target.parent.mkdir(exist_ok=True)
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, target, ignore=ignored) if source.is_dir() else shutil.copy(source, target)
        argv = [sys.executable, "-m", "soda_jobs.sandbox.launch", str(folder / "launcher")]
        subprocess.run(argv, check=True, cwd=folder)
        shutil.copy(HERE / "drive.py", folder)
        subprocess.run(["gcc", "-static", "-o", str(folder / "attack"), str(HERE / "attack.c")], check=True)
        yield folder


def public_python() -> str:
    """An interpreter that every user may run."""
    for found in ("/usr/bin/python3", sys.executable):
        if os.access(found, os.X_OK) and not os.path.realpath(found).startswith("/root"):
            asked = [found, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
            if subprocess.run(asked, check=False).returncode == 0:
                return found
    pytest.skip("no Python of 3.11 or later that every user may run")


def unprivileged() -> list[str]:
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("only root can become another user, with setpriv")
    drop = "--reuid 65532 --regid 65532 --clear-groups --bounding-set=-all --inh-caps=-all --no-new-privs"
    return ["setpriv", *drop.split()]


def gvisor() -> list[str]:
    found = sorted((Path.home() / ".cache/soda/bin").glob("runsc-*"))
    runsc = os.environ.get("SODA_TEST_RUNSC") or (str(found[-1]) if found else None)
    if runsc is None:
        pytest.skip("no runsc: set SODA_TEST_RUNSC, or run the tests of the cluster once")
    return [runsc, "--network=none", "--ignore-cgroups", "do", "--", *unprivileged()]


@pytest.fixture(scope="session", params=PLACES)
def said(request: pytest.FixtureRequest, image: Path) -> dict[str, Any]:
    """What drive.py says in each place."""
    before = {"here": list, "unprivileged": unprivileged, "gvisor": gvisor}[request.param]()
    python = sys.executable if request.param == "here" else public_python()
    variables = {
        "PATH": os.environ["PATH"],
        "HOME": "/tmp",
        "PYTHONPATH": str(image),
        "PYTHONDONTWRITEBYTECODE": "1",
        "SODA_LAUNCHER": str(image / "launcher" / "launcher"),
    }
    done = subprocess.run(
        [*before, python, str(image / "drive.py"), str(image / "attack")],
        input=json.dumps({"programs": list(PROGRAMS.values()), "repeats": REPEATS}),
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, Any] = json.loads(done.stdout)
    if not found["launcher"] and request.param != "gvisor":
        pytest.skip(f"this machine allows no namespaces: {found['missing']}")
    return {"where": request.param, **found}


def test_no_wall_is_missing(said: dict[str, Any]) -> None:
    assert said["missing"] == ""


def test_every_wall_holds(said: dict[str, Any]) -> None:
    answers = dict(line.split(" ", 1) for line in said["attack"].splitlines())
    wanted = wanted_answers(said["where"])
    wrong = {name: answers.get(name) for name, good in wanted.items() if answers.get(name) not in good}
    if "x32_getpid" not in answers:
        wrong.pop("x32_getpid")
    assert wrong == {}


def test_its_disk_has_a_size_and_a_number_of_files(said: dict[str, Any]) -> None:
    answers = dict(line.split(" ", 1) for line in said["attack"].splitlines())
    assert 200 <= int(answers["disk_megabytes"]) <= 256
    assert 7000 <= int(answers["disk_files"]) <= 8192


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_copied_interpreter_does_what_a_new_one_does(said: dict[str, Any], name: str) -> None:
    place = list(PROGRAMS).index(name)
    assert without_addresses(said["copied"][place]) == without_addresses(said["executed"][place])


def without_addresses(ended: dict[str, Any]) -> dict[str, Any]:
    return {**ended, **{name: re.sub(r"0x[0-9a-f]+", "0x…", ended[name]) for name in ("stdout", "stderr")}}


def test_programs_end_as_they_should(said: dict[str, Any]) -> None:
    ended = {name: found["code"] for name, found in zip(PROGRAMS, said["copied"], strict=True)}
    wanted = {"hello": 0, "exit_code": 3, "exit_words": 1, "quit": 4, "exception": 1, "abort": -6, "crash": -11}
    wanted |= {"kill_itself": -9, "alarm": -14, "threads": 0, "processes": 0, "spawned": 0, "subprocess": 0}
    assert {name: ended[name] for name in wanted} == wanted


def test_nothing_is_left_after_many(said: dict[str, Any]) -> None:
    assert said["after"] == said["before"]
    assert said["after"]["processes"] == said["after"]["launchers"]
    assert said["after"]["temporary"] == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_launcher_that_is_gone_takes_its_jails_along_and_is_replaced(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    walls = find_walls(72)
    if not walls.launcher:
        pytest.skip(walls.missing)
    monkeypatch.setattr(launched, "_ANSWER_SECONDS", 1.0)
    launched.end_launchers()
    others = set(tree.descendants(os.getpid()))  # servers of other tests
    with Jail(walls, {}, {}) as jail:
        launcher = next(iter(launched._kept.running.values()))
        assert jail.run(Job(("/bin/true",), {}, 5.0, 1 << 28)).code == 0
        os.kill(launcher.pid, number)
        if number == signal.SIGKILL:
            os.waitid(os.P_PID, launcher.pid, os.WEXITED | os.WNOWAIT)
    with Jail(walls, {}, {}) as jail:
        assert jail.run(Job(("/bin/true",), {}, 5.0, 1 << 28)).code == 0
        assert next(iter(launched._kept.running.values())) is not launcher
    launched.end_launchers()
    assert set(tree.descendants(os.getpid())) <= others


def test_walls_without_a_launcher_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> Path:
        raise launch.NoLauncher("no compiler")

    monkeypatch.setattr(launch, "find", none)
    found = strongest(72, lambda walls: None)
    assert (found.launcher, found.namespaces) == ("", True)
    assert found.missing == "no launcher here (no compiler): programs can make any system call"


def test_a_named_launcher_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SODA_LAUNCHER", "/nowhere/launcher")
    with pytest.raises(launch.NoLauncher, match="'/nowhere/launcher', which is not a program; leave it unset"):
        launch.find.__wrapped__()


def test_without_a_compiler_there_is_no_launcher(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SODA_LAUNCHER", raising=False)
    monkeypatch.setenv("SODA_SANDBOX_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(launch.NoLauncher, match="none of cc, gcc, clang is installed"):
        launch.find.__wrapped__()
    assert not list(tmp_path.glob("launcher-*/*"))


def test_a_request_for_two_times_the_same_launcher_compiles_it_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if shutil.which("cc") is None:
        pytest.skip("no C compiler on this machine")
    monkeypatch.delenv("SODA_LAUNCHER", raising=False)
    monkeypatch.setenv("SODA_SANDBOX_CACHE", str(tmp_path))
    argv = [sys.executable, "-c", "from soda_jobs.sandbox import launch; print(launch.find())"]
    both = [subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    found = {process.communicate()[0].strip() for process in both}
    assert len(found) == 1
    assert sorted(path.name for path in Path(found.pop()).parent.iterdir()) == ["forkserver.so", "launcher"]
    assert not list(tmp_path.glob(".launcher-*"))
