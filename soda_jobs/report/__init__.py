"""The page of a run: what its artifacts say (`collect`, `samples`), what it cost (`facts`), drawn (`page`)."""

from soda_jobs.report.facts import RunFacts, StageFact
from soda_jobs.report.page import render

__all__ = ["RunFacts", "StageFact", "render"]
