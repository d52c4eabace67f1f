"""A source on this machine is known by its content."""

from pathlib import Path

from soda_jobs.graph import Graph, Kind, Stage
from soda_jobs.local.pinned import pin_sources


def digest(source: str) -> object:
    graph = Graph("soda", 1, (Stage("source", Kind.SOURCE, 0, {"what": "questions", "source": source}),))
    return pin_sources(graph).stage("source").settings.get("digest")


def test_an_edited_file_of_questions_is_other_work(tmp_path: Path) -> None:
    path = tmp_path / "questions.jsonl"
    path.write_text('{"instruction": "one"}\n')
    before = digest(str(path))
    assert before == digest(f"file:{path}")
    path.write_text('{"instruction": "two"}\n')
    assert before not in (None, digest(str(path)))


def test_a_changed_checkpoint_folder_is_other_work(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    before = digest(str(tmp_path))
    (tmp_path / "model.safetensors").write_text("weights")
    assert before not in (None, digest(str(tmp_path)))


def test_what_is_not_on_this_machine_is_left_alone() -> None:
    assert digest("hf:owner/data") is None
    assert digest("builtin:tutor") is None
    assert digest("s3://bucket/key") is None
