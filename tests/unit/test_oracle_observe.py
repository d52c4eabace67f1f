"""Tests are interpreted outside: as by Python, without running them, and only on what the program has said."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from soda_jobs.sandbox.oracle import expressions, observe
from soda_jobs.sandbox.oracle.frames import read_frames
from soda_jobs.sandbox.oracle.session import Session

MAX_ROUNDS = 5


def answers(steps: tuple[bytes, ...], code: str, folder: Path) -> tuple[bytes, ...]:
    """The driver's answers to these steps, without a sandbox: this code is ours."""
    (folder / "program.py").write_text(code, encoding="utf-8")
    (folder / "main.py").write_text(observe.driver(steps), encoding="utf-8")
    reader, writer = os.pipe()
    start = f"import os, sys; os.dup2({writer}, 3); os.execv(sys.executable, [sys.executable, 'main.py'])"
    with (
        open(reader, "rb") as file,
        subprocess.Popen(
            [sys.executable, "-c", start], cwd=folder, pass_fds=[writer], stderr=subprocess.DEVNULL
        ) as process,
    ):
        os.close(writer)
        data = file.read()
        process.wait()
    return read_frames(data, len(steps)).answers


def judge(tests: str, code: str, folder: Path) -> tuple[str, int]:
    """The verdict's word and the runs it took."""
    prepared = observe.prepare(tests)
    assert isinstance(prepared, observe.Prepared), prepared
    steps = prepared.first.steps
    for rounds in range(1, MAX_ROUNDS + 1):
        found = observe.explore(prepared, Session(steps, answers(steps, code, folder)))
        if found.reading is not None:
            return found.reading.word, rounds
        steps = found.steps
    raise AssertionError("too many rounds")


def python(tests: str, code: str) -> str:
    """The word for what Python itself does with the tests behind the code."""
    done = subprocess.run([sys.executable, "-c", f"{code}\n{tests}"], capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return "pass"
    return observe.failure(*(done.stderr.strip().splitlines()[-1] + ": ").split(": ", 1)).word


F = "def f(x): return x + 1\ndef g(*a, **k): return [list(a), k]\ndef h(x): return x"
SPLIT = {
    "assert f(1) == 2": 1,
    "assert f(1) == 3": 1,
    "assert not f(-1)": 1,
    "assert f(1) == 2 and f(2) == 3, 'message'": 1,
    "assert f(1) == 3 or f(2) == 3": 2,
    "assert f(f(1)) == 3": 1,
    "assert f(f(1) + 1) == 4": 2,
    "assert g(1, *[2, 3], k=[f(1)]) == [[1, 2, 3], {'k': [2]}]": 1,
    "def check(candidate):\n    assert candidate(1) == 2\n    assert candidate(2) == 3\ncheck(f)": 1,
    "for x, y in [(1, 2), (2, 3)]:\n    assert f(x) == y": 1,
    "for i, (x, y) in enumerate(zip([1, 2], [2, 4])):\n    assert f(x) == y, i": 1,
    "for x in h([1, 2]):\n    assert f(x) == x + 1": 2,
    "assert all(f(x) == x + 1 for x in range(5))": 1,
    "assert [f(x) for x in range(3) if x != 1] == [1, 3]": 1,
    "assert {x: f(x) for x in 'a' and [1]} == {1: 2}": 1,
    "assert set(g(1)[0]) == {1}": 1,
    "assert sorted(h([3, 1, 2]), key=lambda x: -x) == [3, 2, 1]": 1,
    "assert abs(f(0.1) - 1.1) < 1e-9": 1,
    "import math\nassert math.isclose(f(0.1), 1.1, rel_tol=1e-9)": 1,
    "from math import floor as down\nassert down(f(0.5)) == 1": 1,
    "x = f(1)\nif x > 100:\n    assert f(2) == 0\nelse:\n    assert f(2) == 3": 2,
    "n = 0\nwhile f(n) < 4:\n    n += 1\n    if n == 9: break\nassert n == 3": 0,
    "try:\n    f('a')\n    assert False\nexcept TypeError as error:\n    assert 'str' in str(error)": 1,
    "try:\n    f('a')\n    assert False\nexcept ValueError:\n    pass": 2,
    "try:\n    f(1)\nexcept TypeError:\n    pass\nelse:\n    assert f(2) == 3\nfinally:\n    assert f(3) == 4": 1,
    "assert f(None) == 1": 1,
    "assert undefined(1) == 1": 1,
    "assert f(1).strip() == 'x'": 1,
    "assert h(' x ').strip() == 'x'": 1,
    "assert h([1, 2])[0] == 1 and h([1, 2])[-1:] == [2]": 1,
    "assert h({'a': 1})['b'] == 1": 1,
    "a, (b, *c) = h([1, [2, 3, 4]])\nassert (a, b, c) == (1, 2, [3, 4])": 2,
    "a, b = h((1, 2))\nassert b - a == 1": 1,
    "assert h(1) is not None and h(None) is None": 1,
    "assert isinstance(h('a'), str) and not isinstance(h(1), (str, list))": 1,
    "assert type(h(1)) == int": 1,
    "assert 2 in h([1, 2]) and 5 not in h([1])": 1,
    "assert 1 < f(1) <= 2 < f(2)": 1,
    "assert f'{f(1)}-{f(0.25):.1f}-{h(\"a\")!r}' == \"2-1.2-'a'\"": 1,
    "assert '%s %d' % (h('a'), f(1)) == 'a 2'": 1,
    "assert ','.join(h(['a', 'b'])) == 'a,b'": 1,
    "assert list(map(f, [1, 2])) == [2, 3] and sum(map(f, [1])) == 2": 1,
    "assert (lambda x, y=2: f(x) * y)(1) == 4": 1,
    "def o(a, *b, c=1, **d):\n    return a, b, c, d\nassert o(h(1), 2, c=3, e=4) == (1, (2,), 3, {'e': 4})": 1,
    "total = 0\ndef add(n):\n    global total\n    total += n\nadd(f(1))\nassert total == 2": 1,
    "assert (f(1) if f(0) == 1 else f(5)) == 2": 1,
    "raise ValueError(f(1))": 1,
    "assert h([1, [2]]) == [1, [2]] and h((1,)) != [1]": 1,
    "assert h(1) == 1.0 == True": 1,
    "import random\nr = random.Random(3)\nfor _ in range(9):\n    n = r.randint(1, 9)\n    assert f(n) > n": 1,
    "assert [*h([1, 2])] == [1, 2]": 1,
    "assert f(1) == 2; print(f(1)); METADATA = {'author': 'x'}": 1,
}


@pytest.mark.parametrize("tests", SPLIT)
def test_tests_mean_what_they_mean_to_python(tests: str, tmp_path: Path) -> None:
    word, rounds = judge(tests, F, tmp_path)
    assert word == python(tests, F)
    assert rounds <= (SPLIT[tests] or MAX_ROUNDS)


OBJECTS = """
class Stack:
    def __init__(self, *items): self.items = list(items)
    def push(self, x): self.items.append(x)
    def pop(self): return self.items.pop()
    def __len__(self): return len(self.items)
    def __getitem__(self, n): return self.items[n]
    def __contains__(self, x): return x in self.items
class Empty(Exception): pass
def fail(): raise Empty('no')
def make(): return Stack(7)
def rotate(a): a.append(a.pop(0)); return None
def lazily(n): return (i * i for i in range(n))
def lazier(n):
    while True:
        yield n
def mapped(a): return map(str, a)
def nested(a): a[0].append(1); a[1]['k'] = 2
Pair = __import__('collections').namedtuple('Pair', 'x y')
def counted(s): return __import__('collections').Counter(s)
LIMIT = 5
def total(items): return sum(items)
"""
WITH_OBJECTS = [
    "s = Stack(1)\ns.push(2)\nassert s.pop() == 2 and s.items == [1]\nassert len(s) == s[0] and 1 in s",
    "s = make()\ns.push(2)\nassert s.pop() == 2 and len(s) == 1",
    "s = Stack()\ns.items = [4]\nassert s.pop() == 4",
    "s = Stack()\ntry:\n    s.pop()\n    assert False\nexcept IndexError:\n    pass\nassert len(s) == 0",
    "try:\n    fail()\n    assert False\nexcept Empty:\n    pass",
    "try:\n    fail()\nexcept (KeyError, Exception) as e:\n    assert str(e) == 'no'",
    "a = [1, 2, 3]\nrotate(a)\nassert a == [2, 3, 1]\nrotate(a)\nassert a == [3, 1, 2]",
    "row = []\na = [row, {}]\nnested(a)\nassert a == [[1], {'k': 2}] and row == [1]",
    "assert list(lazily(3)) == [0, 1, 4]\nassert sum(lazily(4)) == 14",
    "g = lazily(3)\nassert next(g) == 0 and next(g) == 1",
    "assert list(mapped([1, 2])) == ['1', '2']\nassert total(lazily(4)) == 14",
    "g = lazily(4)\nassert total(g) == 14",
    "p = Pair(1, 2)\nassert p == (1, 2)",
    "assert counted('aab') == {'a': 2, 'b': 1}\nassert counted('aab').most_common(1) == [('a', 2)]",
    "assert LIMIT == 5 and total([LIMIT, 1]) == 6",
]


@pytest.mark.parametrize("tests", WITH_OBJECTS)
def test_objects_of_the_program_stay_inside_and_are_asked(tests: str, tmp_path: Path) -> None:
    assert judge(tests, OBJECTS, tmp_path)[0] == python(tests, OBJECTS) == "pass"


def test_what_a_task_gives_is_not_the_programs_to_change(tmp_path: Path) -> None:
    given = "import math\n"
    given += "def poly(xs, x):\n    '''D.'''\n    return sum(c * math.pow(x, n) for n, c in enumerate(xs))\n"
    given += "def zero(xs):\n    '''To be completed.'''\n"
    tests = "def check(candidate):\n    assert abs(poly([-1, 2], candidate([-1, 2]))) < 1e-4\ncheck(zero)"
    cheat = "def zero(xs): return 9\ndef poly(xs, x): return 0"
    words = []
    for prepared in (observe.prepare(tests), observe.prepare(tests, given)):
        assert isinstance(prepared, observe.Prepared)
        steps = prepared.first.steps
        found = observe.explore(prepared, Session(steps, answers(steps, cheat, tmp_path)))
        words.append(found.reading and found.reading.word)
    assert words == ["pass", "logic"]


REFUSED = [
    "import os\nassert f(os.getcwd()) == 1",
    "import re\nassert re.match('a', f(1))",
    "from unittest import TestCase",
    "class T:\n    pass\nassert f(1) == 2",
    "assert f(1).__class__.__bases__ == ()\nassert (1).__class__ == int",
    "assert eval('f(1)') == 2",
    "exec('x = 1')\nassert f(1) == 2",
    "open('/etc/passwd')\nassert f(1) == 2",
    "assert __import__('os').getpid() == f(1)",
    "assert ().__class__.__mro__[1].__subclasses__() == f(1)",
    "assert '{0.__class__}'.format(1) == f(1)",
    "assert '{:{}}'.format(1, 10**9) == f(1)",
    "assert f'{1:>1000000000}' == f(1)",
    "assert '%1000000000d' % 1 == f(1)",
    "assert '%(a)1000000000d' % {'a': 1} == f(1)",
    "assert f'{1:*>1000000000}' == f(1)",
    "assert '%*d' % (10**9, 1) == f(1)",
    "import itertools\nassert f(list(itertools.product([1], repeat=10**9))) == 1",
    "assert f(len(sum([[1]] * 10**5, []))) == 1",
    "assert f(set([n * (2**61 - 1) for n in range(1000)])) == 1",
    "assert f({n * (2**61 - 1) for n in range(1000)}) == 1",
    "a = [1]\nfor _ in range(100):\n    a += a\nassert f(a) == 1",
    "assert str.__subclasses__() == f(1)",
    "assert f(lambda x: x) == 2",
    "import random\nrandom.seed(1)\nassert f(1) == 2",
    "with f(1) as x:\n    pass",
    "async def g():\n    await f(1)",
    "def gen():\n    yield 1\nassert f(1) in gen()",
    "assert 1 == 1",
    "def test_f():\n    assert f(1) == 2",
    "assert f(1 ==",
    "assert f(10**10**10) == 1",
    "assert f(2**10**9) == 1",
    "assert f(1 << 10**9) == 1",
    "assert f('a' * 10**9) == 1",
    "assert f([0] * 10**9) == 1",
    "assert f(list(range(10**9))) == 1",
    "assert sum(range(10**9)) == f(1)",
    "assert sorted(range(10**12)) == f(1)",
    "assert ''.join(['a' * 10**6] * 10**4) == f(1)",
    "assert 'a'.ljust(10**9) == f(1)",
    "assert ('a' * 10**5).replace('a', 'b' * 10**5) == f(1)",
    "a = [1]\nfor _ in range(100):\n    a = a + a\nassert f(a) == 1",
    "s = 'a'\nfor _ in range(100):\n    s += s\nassert f(s) == 1",
    "n = 3\nfor _ in range(100):\n    n = n * n\nassert f(n) == 1",
    "import math\nassert math.factorial(10**7) == f(1)",
    "import itertools\nassert len(list(itertools.product(range(100), repeat=9))) == f(1)",
    "import random\nassert f(random.choices([1], k=10**9)) == 1",
    "assert f(bytes(10**10)) == 1",
    "assert iter(int, 1) == f(1)",
    "def loop(n):\n    return loop(n)\nassert f(loop(1)) == 1",
    "assert f(" + "(" * 500 + ")" * 500 + ") == 1",
    "assert " + "-" * 50_000 + "f(1)",
]


@pytest.mark.parametrize("tests", REFUSED)
def test_what_cannot_be_judged_outside_is_refused_in_words(tests: str) -> None:
    assert isinstance(observe.prepare(tests), str)


@pytest.mark.parametrize(
    "tests", ["while True:\n    pass", "for i in range(10**6):\n    for j in range(10**6):\n        x = 1"]
)
def test_a_test_that_never_ends_is_refused(tests: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expressions, "MAX_NODES", 20_000)
    assert "steps" in str(observe.prepare(f"{tests}\nassert f(1) == 2"))


def test_the_driver_holds_no_expected_value() -> None:
    prepared = observe.prepare("assert f('given') == 'wanted' and abs(f(1) - 777777) < 1")
    assert isinstance(prepared, observe.Prepared)
    text = observe.driver(prepared.first.steps)
    assert "given" in text
    assert "wanted" not in text
    assert str((777777).to_bytes(3, "little"))[2:-1] not in text
    assert "soda" not in text


def test_a_missing_answer_is_no_verdict() -> None:
    prepared = observe.prepare("assert f(1) == 2\nassert f(2) == 3")
    assert isinstance(prepared, observe.Prepared)
    found: Any = observe.explore(prepared, Session(prepared.first.steps, (), is_over=True))
    assert (found.reading, found.is_over) == (None, True)
