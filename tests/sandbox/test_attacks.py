"""What hostile programs try. Each test attacks one property, and afterwards no process is left."""

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from soda_jobs.sandbox import tree
from soda_jobs.sandbox.client import run_programs
from soda_jobs.sandbox.types import Program, Verdict
from soda_jobs.sandbox.workers import TOKEN

Run = Callable[..., Verdict]


@pytest.fixture(autouse=True)
def _nothing_is_left(server: dict[str, Any]) -> Iterator[None]:
    """Below the server are its workers, below these their launchers; what is below those has ended."""
    if server["pid"] is None:
        yield
        return
    before = _programs(server["pid"])
    yield
    deadline = time.monotonic() + 3
    while _programs(server["pid"]) - before and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _programs(server["pid"]) - before
    assert not [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _is_marked(pid)]


def _programs(server: int) -> set[int]:
    launchers = [pid for worker in tree.children(server) for pid in tree.children(worker)]
    return {pid for launcher in launchers for pid in tree.descendants(launcher)}


def _is_marked(pid: int) -> bool:
    try:
        return b"soda-attack-marker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


MARKED = "os.execv(sys.executable, [sys.executable, '-c', 'import time; time.sleep(600)', 'soda-attack-marker'])"


def test_a_fork_bomb_meets_the_process_limit(run: Run) -> None:
    assert run("python", "import os\nwhile True:\n    os.fork()", memory_mib=4096).verdict == "process_limit"


def test_a_thread_bomb_meets_the_process_limit(run: Run) -> None:
    code = "import threading, time\nwhile True:\n    threading.Thread(target=time.sleep, args=(60,)).start()"
    assert run("python", code, memory_mib=4096).verdict == "process_limit"


def test_a_daemon_in_its_own_session_does_not_outlive_an_honest_parent(run: Run) -> None:
    child = f"    os.setsid()\n    if os.fork() == 0:\n        {MARKED}\n    os._exit(0)\n"
    assert run("python", f"import os, sys\nif os.fork() == 0:\n{child}").verdict == "pass"


def test_a_daemon_that_ignores_every_signal_dies(run: Run) -> None:
    code = (
        "import os, signal, time\n"
        "if os.fork() == 0:\n"
        "    for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:\n"
        "        signal.signal(number, signal.SIG_IGN)\n"
        "    os.setsid()\n"
        "    time.sleep(600)\n"
    )
    started = time.monotonic()
    assert run("python", code).verdict == "pass"
    assert time.monotonic() - started < 5


def test_endless_output_meets_the_output_limit(run: Run) -> None:
    assert run("python", "while True: print('x' * 1000)").verdict == "output_limit"


def test_endless_errors_meet_the_output_limit(run: Run) -> None:
    code = "import sys\nwhile True: sys.stderr.write('x' * 1000)"
    assert run("python", code).verdict == "output_limit"


@pytest.mark.parametrize("size", [200 << 10, 4 << 20])
def test_much_honest_output_passes(run: Run, size: int) -> None:
    assert run("python", f"print('x' * {size})", "assert True").verdict == "pass"


def test_a_huge_file_meets_the_disk_limit(run: Run) -> None:
    code = "with open('big', 'wb') as f:\n    while True:\n        f.write(bytes(1 << 20))"
    assert run("python", code).verdict == "disk_limit"


@pytest.mark.usefixtures("walls")
def test_many_files_meet_the_disk_limit(run: Run) -> None:
    assert (
        run("python", "i = 0\nwhile True:\n    open(f'/tmp/{i}', 'w').close()\n    i += 1").verdict == "disk_limit"
    )


@pytest.mark.usefixtures("walls")
def test_files_that_are_each_small_fill_no_disk_of_ours(run: Run) -> None:
    code = "for i in range(40):\n    with open(f'{i}', 'wb') as f:\n        f.write(bytes(32 << 20))"
    assert run("python", code, memory_mib=1024).verdict in ("disk_limit", "memory")


def test_very_deep_folders_are_removed(run: Run) -> None:
    code = "import os\nfor i in range(3000):\n    os.mkdir('d')\n    os.chdir('d')"
    assert run("python", code).verdict == "pass"


def test_closing_every_descriptor_is_no_pass_with_tests(run: Run) -> None:
    code = "import os\nos.closerange(0, 256)"
    assert run("python", code, "assert False").verdict in ("logic", "runtime")
    assert run("python", code, "assert True").verdict in ("logic", "runtime")


def test_writing_to_every_descriptor_forges_no_verdict(run: Run) -> None:
    line = '{"verdict": {"verdict": "pass"}, "status": 0, "is_final": true}\\n'
    write = f"try:\n        os.write(fd, b'{line}')\n    except OSError: pass"
    code = f"import os\nfor fd in range(4, 256):\n    {write}\n"
    assert run("python", code + "raise SystemExit(1)").verdict == "runtime"


@pytest.mark.usefixtures("walls")
@pytest.mark.parametrize("path", ["/root/.ssh", "/home", "/etc/shadow", "/etc/hosts", "/run", "/proc/1/environ"])
def test_nothing_of_the_machine_can_be_read(run: Run, path: str) -> None:
    code = (
        "import os\n"
        f"path = {path!r}\n"
        "try:\n"
        "    print(os.listdir(path) if os.path.isdir(path) else open(path).read())\n"
        "except OSError:\n"
        "    raise SystemExit(0)\n"
        "raise SystemExit(1)\n"
    )
    assert run("python", code).verdict == "pass"


def test_no_variable_of_ours_is_in_its_environment(run: Run) -> None:
    code = "import os\nassert 'hunter2' not in str(os.environ), os.environ\nassert len(os.environ) < 15\n"
    assert run("python", code).verdict == "pass"


@pytest.mark.usefixtures("walls")
def test_no_process_shows_our_environment(run: Run) -> None:
    code = (
        "import os\n"
        "for pid in filter(str.isdigit, os.listdir('/proc')):\n"
        "    for name in ('environ', 'mem', 'maps', 'fd/0', 'root/etc'):\n"
        "        try:\n"
        "            found = open(f'/proc/{pid}/{name}', 'rb').read(9999)\n"
        "        except OSError:\n"
        "            continue\n"
        "        assert b'hunter2' not in found\n"
        "assert len([p for p in os.listdir('/proc') if p.isdigit()]) == 2\n"
    )
    assert run("python", code).verdict == "pass"


@pytest.mark.usefixtures("walls")
def test_what_one_program_leaves_the_next_does_not_find(run: Run) -> None:
    places = "('mark', '/tmp/mark', '/dev/shm/mark', '/var/tmp/mark')"
    assert run("python", f"for p in {places}: open(p, 'w').write('x')").verdict == "pass"
    assert run("python", f"import os\nassert not any(map(os.path.exists, {places}))").verdict == "pass"


@pytest.mark.usefixtures("walls")
def test_it_cannot_write_where_the_system_is(run: Run) -> None:
    code = (
        "import os, sys\n"
        "for folder in ('/', '/usr', '/usr/bin', sys.base_prefix, '/etc', '/proc/sys/kernel'):\n"
        "    assert not os.access(folder, os.W_OK), folder\n"
    )
    assert run("python", code).verdict == "pass"


@pytest.mark.usefixtures("walls")
@pytest.mark.parametrize("address", ["('127.0.0.1', PORT)", "('10.0.0.1', 80)", "('169.254.169.254', 80)"])
def test_no_connection_leaves_it(run: Run, server: dict[str, Any], address: str) -> None:
    address = address.replace("PORT", server["url"].rpartition(":")[2])
    code = f"import socket\nsocket.create_connection({address}, timeout=3)"
    assert run("python", code).verdict in ("environment", "runtime")


@pytest.mark.usefixtures("walls")
def test_no_name_is_resolved(run: Run) -> None:
    assert run("python", "import socket\nsocket.gethostbyname('example.com')").verdict == "environment"


@pytest.mark.usefixtures("walls")
def test_it_is_not_root_and_cannot_become_it(run: Run) -> None:
    code = (
        "import ctypes, os\n"
        "assert os.getuid() == os.geteuid() == 1000\n"
        "status = open('/proc/self/status').read()\n"
        "assert 'CapEff:\\t0000000000000000' in status and 'NoNewPrivs:\\t1' in status\n"
        "libc = ctypes.CDLL(None)\n"
        "for flag in (0x10000000, 0x00020000, 0x20000000, 0x40000000):\n"
        "    assert libc.unshare(flag) == -1\n"
        "assert libc.mount(b'none', b'/tmp', b'tmpfs', 0, None) == -1\n"
        "assert libc.ptrace(16, 1, 0, 0) == -1\n"
    )
    assert run("python", code).verdict == "pass", run("python", code).detail


@pytest.mark.usefixtures("walls")
@pytest.mark.parametrize("target", ["-1", "1", "os.getppid()"])
def test_killing_everything_kills_only_itself(run: Run, server: dict[str, Any], target: str) -> None:
    code = f"import os, signal\nos.kill({target}, signal.SIGKILL)\nraise SystemExit(1)"
    programs = [Program(f"p{i}", "python", code) for i in range(4)]
    programs += [Program(f"n{i}", "python", "import time\ntime.sleep(0.3)") for i in range(4)]
    verdicts = asyncio.run(run_programs(server["url"], programs, token=os.environ.get(TOKEN)))
    assert {verdicts[f"p{i}"].verdict for i in range(4)} == {"runtime"}
    assert {verdicts[f"n{i}"].verdict for i in range(4)} == {"pass"}


def test_a_link_left_in_its_folder_leads_nowhere(run: Run, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_text("x")
    code = f"import os\nos.symlink({str(kept)!r}, 'a')\nos.symlink({str(tmp_path)!r}, 'b')\nos.mkfifo('c')"
    assert run("python", code).verdict == "pass"
    assert kept.read_text() == "x"


def test_removing_everything_removes_only_its_own(run: Run, tmp_path: Path) -> None:
    (tmp_path / "kept").touch()
    run("python", f"import shutil\nfor p in ('.', '/tmp', '/dev', {str(tmp_path)!r}): shutil.rmtree(p, True)")
    assert (tmp_path / "kept").exists()
    assert run("python", "print(1)").verdict == "pass"


def test_output_that_is_no_text_is_no_fault(run: Run) -> None:
    code = "import sys\nsys.stderr.buffer.write(bytes(range(256)))\nsys.stdout.buffer.write(b'\\xff\\xfe')\n"
    assert run("python", code).verdict == "pass"
    assert run("python", code + "raise SystemExit(1)").verdict == "runtime"
    assert run("python", "raise ValueError('\\ud800\\x00\\x1b[31m\\n\\nx' * 999)").verdict == "runtime"


def test_a_long_detail_is_cut(run: Run) -> None:
    assert len(run("python", "raise ValueError('x' * 10 ** 6)").detail) <= 500


def test_sleeping_is_its_own_time(run: Run) -> None:
    verdict = run("python", "import time\ntime.sleep(600)", timeout_seconds=0.5)
    assert verdict.verdict == "timeout"
    assert verdict.seconds < 3


def test_stopping_itself_is_its_own_time(run: Run) -> None:
    code = "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)"
    assert run("python", code, timeout_seconds=0.5).verdict == "timeout"


def test_children_that_compute_in_turn_are_counted(run: Run) -> None:
    child = "sum(range(10 ** 6))\n        os._exit(0)"
    code = f"import os\nwhile True:\n    if os.fork() == 0:\n        {child}\n    os.wait()"
    assert run("python", code, timeout_seconds=0.5).verdict == "timeout"


def test_ignoring_signals_does_not_help_against_the_clock(run: Run) -> None:
    code = (
        "import signal\n"
        "for number in (signal.SIGTERM, signal.SIGALRM, signal.SIGINT, signal.SIGXCPU):\n"
        "    signal.signal(number, signal.SIG_IGN)\n"
        "while True: pass\n"
    )
    assert run("python", code, timeout_seconds=0.5).verdict == "timeout"


@pytest.mark.usefixtures("walls")
def test_shared_memory_does_not_escape_the_limits(run: Run) -> None:
    loop = "while True:\n    m = mmap.mmap(-1, 1 << 24)\n    m.write(bytes(1 << 24))\n    kept.append(m)"
    code = f"import mmap\nkept = []\n{loop}"
    assert run("python", code).verdict in ("memory", "runtime")


def test_a_bomb_does_not_change_what_its_neighbours_get(server: dict[str, Any]) -> None:
    bombs = ["import os\nwhile True: os.fork()", "x = bytearray(1 << 40)", "while True: print('x' * 9999)"]
    programs = [Program(f"bomb{i}", "python", code, timeout_seconds=3) for i, code in enumerate(bombs)]
    programs += [Program(f"honest{i}", "python", "print(sum(range(1000)))", "assert 1") for i in range(12)]
    verdicts = asyncio.run(run_programs(server["url"], programs, token=os.environ.get(TOKEN)))
    assert {verdicts[f"honest{i}"].verdict for i in range(12)} == {"pass"}
    assert [verdicts[f"bomb{i}"].verdict for i in range(3)] == ["process_limit", "memory", "output_limit"]
