"""The contract: what a `DistillationRun` may say, with defaults, bounds and the rules between fields.

In: plain data. Out: an immutable `DistillationRun`. Only pydantic and the standard library.
"""

from soda_jobs.spec.base import LANGUAGES, PATTERN_WORDS, Block, Language, SecretKeyRef, SecretRef, show
from soda_jobs.spec.conflict import Conflict
from soda_jobs.spec.models import (
    InitModel,
    Judge,
    Price,
    RateLimits,
    Sampling,
    ServedModel,
    Server,
    Student,
    Teacher,
    TeacherSampling,
)
from soda_jobs.spec.pods import EnvVar, Hub, NodeRequirement, Pods, PodSettings, Resources, Toleration
from soda_jobs.spec.questions import PairFilters, Questions, Ratio, Screen
from soda_jobs.spec.resource import CHANGEABLE, DistillationRun, forbidden_changes
from soda_jobs.spec.rules import conflicts
from soda_jobs.spec.run import Metadata, Method, Prompts, Spec
from soda_jobs.spec.running import (
    Ablation,
    Benchmark,
    Budget,
    Classification,
    Evaluation,
    Execution,
    Storage,
)
from soda_jobs.spec.training import JudgeTraining, Lora, Optimisation, PreferenceTraining, SftTraining, Training

__all__ = [
    "CHANGEABLE",
    "LANGUAGES",
    "PATTERN_WORDS",
    "Ablation",
    "Benchmark",
    "Block",
    "Budget",
    "Classification",
    "Conflict",
    "DistillationRun",
    "EnvVar",
    "Evaluation",
    "Execution",
    "Hub",
    "InitModel",
    "Judge",
    "JudgeTraining",
    "Language",
    "Lora",
    "Metadata",
    "Method",
    "NodeRequirement",
    "Optimisation",
    "PairFilters",
    "PodSettings",
    "Pods",
    "PreferenceTraining",
    "Price",
    "Prompts",
    "Questions",
    "RateLimits",
    "Ratio",
    "Resources",
    "Sampling",
    "Screen",
    "SecretKeyRef",
    "SecretRef",
    "ServedModel",
    "Server",
    "SftTraining",
    "Spec",
    "Storage",
    "Student",
    "Teacher",
    "TeacherSampling",
    "Toleration",
    "Training",
    "conflicts",
    "forbidden_changes",
    "show",
]
