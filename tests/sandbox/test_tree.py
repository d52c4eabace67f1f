"""What is below a process, as kernels show it."""

import pytest

from soda_jobs.sandbox import tree


def test_threads_that_a_kernel_lists_as_children_are_no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = {
        "/proc/1/task": ["1"],
        **{f"/proc/{pid}/task": ["42", "43", "44"] for pid in (42, 43, 44)},
        "/proc/50/task": ["50"],
    }
    listed = {"/proc/1/task/1/children": b"42 43 44 50 "}
    monkeypatch.setattr(tree, "_names", lambda path: shown.get(path, []))
    monkeypatch.setattr(tree, "_read", lambda path: listed.get(path, b""))
    monkeypatch.setattr(tree, "_KERNEL_LISTS_CHILDREN", True)
    assert tree.children(1) == [42, 50]
    assert sorted(tree.descendants(1)) == [42, 50]
