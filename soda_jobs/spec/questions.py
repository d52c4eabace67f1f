"""What the student is asked: where questions come from, how they are screened, how a round draws new ones."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from soda_jobs.spec.base import Block, SourceRef, Word

Weight = Annotated[int, Field(ge=0, le=100)]
Count = Annotated[int, Field(ge=1, le=10_000_000)]


class Ratio(Block):
    """Shares of the levels among the questions that new ones are made from. Defaults: SODA 4.6."""

    easy: Weight = 1
    """Share of questions the student masters; the teacher makes harder ones from them."""
    medium: Weight = 1
    """Share of questions in between."""
    hard: Weight = 2
    """Share of questions the student fails."""

    @property
    def total(self) -> int:
        return self.easy + self.medium + self.hard


class Screen(Block):
    """What is dropped: near-duplicates, benchmark tasks and their look-alikes, too short and too long texts."""

    ngram: Annotated[int, Field(ge=1, le=20)] = 5
    """Tokens in one n-gram. Default: SODA 4.6."""
    jaccard: Annotated[float, Field(gt=0, le=1)] = 0.7
    """Similarity of the n-gram sets from which two texts count as the same. Default: SODA 4.6."""
    min_chars: Annotated[int, Field(ge=1, le=1_000_000)] = 20
    """Shortest question in characters."""
    max_chars: Annotated[int, Field(ge=1, le=1_000_000)] = 8000
    """Longest question in characters; about SODA's training length of 2,048 tokens."""
    self_duplicates: bool = True
    """Drop near-duplicates among the questions themselves, not only look-alikes of benchmark tasks."""


class PairFilters(Block):
    """Which (correct, faulty) pairs are kept for contrastive learning."""

    preset: Literal["paper", "strict"] = "paper"
    """`paper`: both sides are there and differ. `strict`: also drops faults that name themselves and pairs of
    very different length, and strips polite openers, because such pairs can be told apart by
    these alone."""


class Questions(Block):
    """The questions of a run."""

    source: SourceRef = "hf:ise-uiuc/Magicoder-Evol-Instruct-110K"
    """A path, `s3://bucket/key`, `hf:owner/dataset`, or `builtin:tutor`. Default: the public set that fits SODA's
    description of its 110,000 Evol-Instruct questions."""
    format: Literal["auto", "jsonl", "parquet", "datasets"] = "auto"
    """Format of the source. `auto` goes by its name."""
    config: Word | None = None
    """Configuration of an `hf:` dataset. Null: its default."""
    revision: Word | None = None
    """Commit, tag or branch of an `hf:` dataset. Null: the current one when the stage runs, which no key knows."""
    split: Word = "train"
    """Split of an `hf:` dataset."""
    limit: Count | None = None
    """Use only the first so many questions. Null: all."""
    count: Count | None = None
    """How many questions `builtin:tutor` makes. Null: 300."""
    new_per_round: Annotated[int, Field(ge=0, le=10_000_000)] = 10_000
    """New questions that the teacher writes after each round but the last. Default: SODA 4.6."""
    ratio: Ratio = Ratio()
    """From which levels the new questions are made."""
    max_children: Annotated[int, Field(ge=1, le=1000)] = 3
    """New questions made from one question in one round."""
    preference_share: Annotated[float, Field(ge=0, le=0.95)] = 0.2
    """Share of the questions for contrastive learning; the others are for supervised fine-tuning. A question keeps
    its side for the whole run. Default: SODA 4.6 (8:2)."""
    screen: Screen = Screen()
    """What is dropped."""
    pair_filters: PairFilters = PairFilters()
    """Which pairs are kept."""
    new_only: bool = False
    """Train each round on its new questions only. Default: on all questions so far, SODA 4.6."""
    minimum_yield: Annotated[float, Field(ge=0, le=1)] = 0.95
    """A stage fails when fewer of its rows than this share succeed, so that a broken model or prompt is not
    mistaken for data."""
