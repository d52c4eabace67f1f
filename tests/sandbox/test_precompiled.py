"""Precompiled headers: which are taken, and that a program is judged the same with and without."""

from pathlib import Path

import pytest

from soda_jobs.sandbox import precompiled, tools
from soda_jobs.sandbox.gcc import CPP_FLAGS
from soda_jobs.sandbox.precompiled import headers_of
from soda_jobs.sandbox.run import execute, find_walls
from soda_jobs.sandbox.types import Program, Verdict
from soda_jobs.sandbox.walls import Walls

ALL = ("bits/stdc++.h",)


@pytest.mark.parametrize(
    ("code", "headers"),
    [
        ("", ()),
        ("int main() {}\n", ()),
        ("#include <vector>\n#include <string>\nint main() {}\n", ("string", "vector")),
        ("// text\n\n  # include<vector> // text\nint main() {}", ("vector",)),
        ("#include <assert.h>\n#include <bits/stdc++.h>\n", ALL),
        ("#include <bits/stdc++.h>", ALL),
        ("#include <vector>\nusing namespace std;\n#include <bits/stdc++.h>\n", ("vector",)),
        ("#define NDEBUG\n#include <assert.h>\n", ()),
        ("#include <vector>\n#include <unistd.h>\n#include <string>\n", ("vector",)),
        ('#include <vector>\n#include "bits/stdc++.h"\n', ("vector",)),
        ("#pragma GCC target(\"avx2\")\n#include <bits/stdc++.h>\n", ()),
        ("// a line that goes on \\\n#include <vector>\n", ()),
        ("/*\n#include <vector>\n*/\n", ()),
    ],
)  # fmt: skip
def test_only_leading_includes_of_standard_headers_count(code: str, headers: tuple[str, ...]) -> None:
    assert headers_of(code) == headers


@pytest.fixture(scope="module")
def walls() -> Walls:
    if tools.find("g++") is None:
        pytest.skip("no toolchain for cpp on this machine")
    found = find_walls(91)
    if not found.namespaces:
        pytest.skip(f"this machine allows no namespaces: {found.missing}")
    return found


@pytest.fixture
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    folder.chmod(0o755)
    monkeypatch.setenv("SODA_SANDBOX_CACHE", str(folder))
    monkeypatch.setattr(precompiled, "_OFTEN", 1)
    precompiled._asked.clear()
    return folder / "cpp"


def test_a_program_is_judged_the_same(walls: Walls, cache: Path) -> None:
    head = "#include <iostream>\n#include <vector>\n"
    programs = [
        f"{head}int main() {{ std::vector<int> a(3); std::cout << a.size(); }}",
        f"{head}int main() {{ std::map<int, int> a; }}",
        f"{head}int main() {{\n  return nothing; }}",
        f"{head}int main() {{ static_assert(__LINE__ == 3 && __COUNTER__ == 0); }}",
        f"{head}#ifdef _GLIBCXX_MAP\n#error a header that is not included\n#endif\nint main() {{}}",
    ]

    def judge(code: str) -> Verdict:
        return execute(Program("a", "cpp", code), walls).verdict

    warm = [judge(code) for code in programs]
    assert len(list(cache.glob("*.gch"))) == 1
    for made in cache.glob("*.gch"):
        made.write_bytes(b"not one of this compiler's")
    broken = [judge(code) for code in programs]
    said = [[(v.verdict, v.phase, v.detail) for v in verdicts] for verdicts in (warm, broken)]
    assert said[0] == said[1]
    assert [v.verdict for v in warm] == ["pass", "name", "name", "pass", "pass"]


def test_it_is_compiled_once_it_is_asked_for_often(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if tools.find("g++") is None:
        pytest.skip("no toolchain for cpp on this machine")
    monkeypatch.setattr(precompiled, "_OFTEN", 3)
    found = [precompiled.header_for(("cstddef",), CPP_FLAGS) for _ in range(4)]
    assert [path is not None for path in found] == [False, False, True, True]
    assert found[2] is not None
    assert found[2].read_text() == "#include <cstddef>\n"
    monkeypatch.setattr(precompiled, "_MAX_SETS", 1)
    assert [precompiled.header_for(("cstdint",), CPP_FLAGS) for _ in range(3)][-1] is not None
    assert len(list(cache.glob("*.gch"))) == 1
