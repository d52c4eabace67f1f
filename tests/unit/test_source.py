"""The source stage: formats, limits, benchmarks, models, and sentences for what cannot be read."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from soda_jobs.context import Context
from soda_jobs.errors import InvalidInput
from soda_jobs.records import read_rows
from soda_jobs.stages.source import Settings, run

ROWS = [{"instruction": f"Question {i}.", "output": str(i), "language": ("python", "c")[i % 2]} for i in range(5)]


def source(folder: Path, **settings: Any) -> list[dict[str, Any]]:
    """What the stage writes, as rows."""
    out = folder / "out"
    out.mkdir()
    context = Context(
        run="r",
        stage="source",
        round=0,
        inputs={},
        out=out,
        work=folder / "work",
        services={},
        shards=None,  # type: ignore[arg-type]  # this stage has none
        progress=lambda unit, done, total: None,
    )
    counts = run(Settings(**settings), context).counts
    rows = list(read_rows(out / "rows.jsonl")) if (out / "rows.jsonl").exists() else []
    assert counts.get("rows", 0) == len(rows)
    return rows


def lines() -> str:
    return "".join(json.dumps(row) + "\n" for row in ROWS)


def parquet(path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.parquet").write_table(pyarrow.Table.from_pylist(ROWS), path)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("q.jsonl", lambda path: path.write_text("\n" + lines())),
        ("q.jsonl.gz", lambda path: path.write_bytes(gzip.compress(lines().encode()))),
        ("q.json", lambda path: path.write_text(json.dumps(ROWS))),
        ("q.json.gz", lambda path: path.write_bytes(gzip.compress(json.dumps(ROWS).encode()))),
        ("q2.json", lambda path: path.write_text(lines())),
        ("q.parquet", parquet),
    ],
)
def test_every_format_gives_the_same_questions(tmp_path: Path, name: str, write: Any) -> None:
    write(tmp_path / name)
    rows = source(tmp_path, what="questions", source=str(tmp_path / name))
    assert [(row["instruction"], row["solution"], row["language"]) for row in rows] == [
        (row["instruction"], row["output"], row["language"]) for row in ROWS
    ]


def test_file_url_and_a_given_format(tmp_path: Path) -> None:
    (tmp_path / "q.data").write_text(lines())
    url = f"file://{tmp_path}/q.data"
    assert len(source(tmp_path, what="questions", source=url, format="jsonl")) == 5
    (tmp_path / "again").mkdir()
    with pytest.raises(InvalidInput, match=r"q\.data ends in none of \.jsonl, \.json, \.parquet"):
        source(tmp_path / "again", what="questions", source=url)


def test_limit_takes_the_first_and_languages_choose(tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_text(lines())
    rows = source(tmp_path, what="questions", source=str(tmp_path / "q.jsonl"), limit=2, languages=("c",))
    assert [row["instruction"] for row in rows] == ["Question 1.", "Question 3."]


def test_s3_object_is_fetched_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moto = pytest.importorskip("moto.server")
    boto3 = pytest.importorskip("boto3")
    server = moto.ThreadedMotoServer(port=0)
    server.start()
    try:
        _, port = server.get_host_and_port()
        url = f"http://127.0.0.1:{port}"
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
        monkeypatch.setenv(
            "SODA_STORE", json.dumps({"url": "s3://runs/here", "endpoint": url, "region": "us-east-1"})
        )
        client = boto3.client("s3", endpoint_url=url, region_name="us-east-1")
        client.create_bucket(Bucket="data")
        client.put_object(Bucket="data", Key="sets/q.jsonl", Body=lines().encode())
        client.put_object(Bucket="data", Key="models/m/config.json", Body=b"{}")
        client.put_object(Bucket="data", Key="models/m/deep/w.safetensors", Body=b"w")
        assert len(source(tmp_path, what="questions", source="s3://data/sets/q.jsonl")) == 5
        (tmp_path / "m").mkdir()
        source(tmp_path / "m", what="model", source="s3://data/models/m")
        assert (tmp_path / "m" / "out" / "deep" / "w.safetensors").read_bytes() == b"w"
        (tmp_path / "n").mkdir()
        with pytest.raises(InvalidInput, match=r"s3://data/sets/none\.jsonl is not there"):
            source(tmp_path / "n", what="questions", source="s3://data/sets/none.jsonl")
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("q.jsonl", '{"instruction": "a"}\n{oops\n', r"q\.jsonl line 2: is not JSON"),
        ("q.jsonl", '{"instruction": "a"}\n\n[1]\n', r"q\.jsonl line 3: is list, not an object"),
        ("q.jsonl", '{"instruction": "a"}\n{"b": 1}\n', r"q\.jsonl line 2: the keys b fit no known shape"),
        ("q.json", '[{"instruction": "a"}, 3]', r"q\.json row 2: is int, not an object"),
        ("q.parquet", "not parquet", r"q\.parquet: is not a Parquet file"),
        ("q.jsonl.gz", "not gzip", r"q\.jsonl\.gz: cannot be read"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_place(tmp_path: Path, name: str, text: str, why: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InvalidInput, match=why):
        source(tmp_path, what="questions", source=str(tmp_path / name))


def test_bytes_that_are_not_utf8_are_the_files_fault(tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_bytes(b'{"instruction": "\xff"}\n')
    with pytest.raises(InvalidInput, match="cannot be read"):
        source(tmp_path, what="questions", source=str(tmp_path / "q.jsonl"))


def test_missing_file_and_folder_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="is not there"):
        source(tmp_path, what="questions", source=str(tmp_path / "none.jsonl"))
    (tmp_path / "again").mkdir()
    with pytest.raises(InvalidInput, match="is a folder"):
        source(tmp_path / "again", what="questions", source=str(tmp_path))


def test_builtin_questions_and_heldout_tasks_share_none(tmp_path: Path) -> None:
    (tmp_path / "q").mkdir()
    (tmp_path / "t").mkdir()
    questions = source(tmp_path / "q", what="questions", source="builtin:tutor", count=200)
    tasks = source(tmp_path / "t", what="benchmark", name="tutor-heldout", limit=30)
    assert (len(questions), len(tasks)) == (200, 30)
    assert not {row["instruction"] for row in questions} & {row["instruction"] for row in tasks}
    assert not {row["entry_point"] for row in questions} & {row["entry_point"] for row in tasks}
    assert all(row["tests"] and row["solution"] for row in tasks)
    assert {row["source"] for row in tasks} == {"benchmark:tutor-heldout"}


def test_model_folder_is_copied_without_hidden_files(tmp_path: Path) -> None:
    model = tmp_path / "model"
    (model / ".cache").mkdir(parents=True)
    (model / ".cache" / "x").write_text("x")
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(b"weights")
    source(tmp_path, what="model", source=str(model))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["config.json", "model.safetensors"]


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    with pytest.raises(InvalidInput, match=r"no config\.json"):
        source(tmp_path, what="model", source=str(tmp_path / "model"))
