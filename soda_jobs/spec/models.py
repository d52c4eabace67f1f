"""The three models of a run and the servers that answer for them: teacher, student, judge."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from soda_jobs.spec.base import Argument, Block, HttpUrl, ModelRef, SecretKeyRef, Word
from soda_jobs.spec.training import JudgeTraining

Temperature = Annotated[float, Field(ge=0, le=2)]
TopP = Annotated[float, Field(gt=0, le=1)]
MaxTokens = Annotated[int, Field(ge=1, le=131_072)]
Money = Annotated[float, Field(ge=0, le=1_000_000)]
Share = Annotated[float, Field(ge=0, le=1)]


class Sampling(Block):
    """How a model draws its tokens. These defaults are greedy, as SODA 4.5 evaluates."""

    temperature: Temperature = 0.0
    """0 takes the most likely token. Default: SODA 4.5."""
    top_p: TopP = 1.0
    """Smallest share of the probability that is sampled from."""
    top_k: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """Number of most likely tokens that are sampled from; 0 for all."""
    max_tokens: MaxTokens = 512
    """Longest answer in tokens. Default: SODA 4.5."""


class CorrectSampling(Sampling):
    """Sampling of the teacher's correct solutions."""

    temperature: Temperature = 0.2
    """Default: what SODA 4.5 uses wherever it samples."""
    top_p: TopP = 0.95
    """Default: what SODA 4.5 uses wherever it samples."""
    max_tokens: MaxTokens = 2048
    """Longest answer in tokens. SODA gives none; default: its training length."""


class DiverseSampling(Sampling):
    """Sampling where variety is the aim: faulty solutions and new questions. SODA gives none."""

    temperature: Temperature = 0.8
    """Higher than for correct solutions, so that faults and questions differ."""
    top_p: TopP = 0.95
    """Smallest share of the probability that is sampled from."""
    max_tokens: MaxTokens = 2048
    """Longest answer in tokens. Default: SODA's training length."""


class JudgementSampling(Sampling):
    """Sampling of an analysis with scores."""

    max_tokens: MaxTokens = 1024
    """Longest analysis in tokens. SODA gives none; default: half its training length, the rest is the prompt's."""


class TeacherSampling(Block):
    """Sampling for each thing that the teacher writes."""

    correct: CorrectSampling = CorrectSampling()
    """Correct solutions."""
    fault: DiverseSampling = DiverseSampling()
    """Solutions with a fault of a named error class."""
    question: DiverseSampling = DiverseSampling()
    """New questions."""
    annotation: JudgementSampling = JudgementSampling()
    """Judgements on which the scoring model is trained."""


class Server(Block):
    """A model server that the run starts when a stage needs it and stops when none does."""

    engine: Literal["vllm", "cpu", "tutor"] = "vllm"
    """`vllm`: GPUs. `cpu`: small checkpoints on the CPU. `tutor`: the deterministic teacher of templated tasks
    that ships with soda; only for the teacher."""
    gpus: Annotated[int, Field(ge=0, le=16)] | None = None
    """GPUs of one replica (tensor parallel). Null: 1 for `vllm`; the other engines take none."""
    replicas: Annotated[int, Field(ge=1, le=64)] = 1
    """Servers side by side."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number format of the weights. Default: the checkpoint's own."""
    max_model_len: Annotated[int, Field(ge=64, le=1_048_576)] | None = None
    """Context in tokens, prompt and answer together. Null: the model's own."""
    quantization: Literal["awq", "gptq", "fp8", "bitsandbytes"] | None = None
    """Weight quantization by vLLM. Null: none."""
    extra_args: Annotated[tuple[Argument, ...], Field(max_length=64, strict=False)] = ()
    """Further arguments for `vllm serve`, one word each, given as they are."""

    @property
    def gpu_count(self) -> int:
        """GPUs of one replica, the default resolved."""
        if self.gpus is None:
            return 1 if self.engine == "vllm" else 0
        return self.gpus


class RateLimits(Block):
    """What an endpoint allows. Each stage keeps to it, all its pods together; two stages that ask one endpoint at
    the same time may meet its refusals, which cost time and no row."""

    requests_per_minute: Annotated[float, Field(gt=0, le=10_000_000)] | None = None
    """Requests in a minute. Null: as many as it takes."""
    tokens_per_minute: Annotated[float, Field(gt=0, le=100_000_000_000)] | None = None
    """Tokens in a minute, prompts and answers together. A request counts with `maxTokens` until its answer is
    there, as endpoints count it. Null: as many as it takes."""
    concurrent_requests: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """Requests at the same time. Null: as many as prove useful."""


class Price(Block):
    """Money for a million tokens, in the currency of your bill. The report adds it up."""

    input: Money
    """A million tokens of prompts."""
    output: Money
    """A million tokens of answers."""
    cached_input: Money | None = None
    """A million tokens of prompts that the endpoint found in its cache and says so. Null: as `input`."""


class ServedModel(Block):
    """A model that answers requests: an external endpoint, or a server that the run starts itself."""

    model: ModelRef | None = None
    """Hub id, `s3://` URL or path of the weights; with `endpoint`, the name to ask for."""
    revision: Word | None = None
    """Commit, tag or branch of a hub id. Null: the one that is current when the stage runs, which no key knows."""
    endpoint: HttpUrl | None = None
    """Base URL of an OpenAI-compatible API, `/v1` included. Null: the run starts a server."""
    secret_ref: SecretKeyRef | None = None
    """Where the endpoint's API key is. Only an http endpoint on this very machine needs none."""
    server: Server | None = None
    """The server to start. Null: vLLM with one GPU."""
    rate_limits: RateLimits | None = None
    """What the endpoint allows. Null: as much as it takes without refusing."""
    price: Price | None = None
    """What the endpoint's tokens cost. Null: the report counts tokens only."""

    @property
    def serving(self) -> Server | None:
        """The server to start, the default resolved; None when an endpoint answers."""
        return None if self.endpoint is not None else self.server or Server()


class Teacher(ServedModel):
    """The strong model: writes solutions, faults, judgements and questions. SODA: Llama3-70B. SSD has none."""

    sampling: TeacherSampling = TeacherSampling()
    """How it draws its tokens."""
    yield_floor: Share = 0.5
    """A stage is stopped as soon as fewer than this share of 200 rows in a row can be usable; 0 never. It is there
    to save tokens, so stay well below what you expect; `questions.minimumYield` decides on a finished stage, and
    where that is lower it counts here too. It may be another in a later run that goes on from this one's rows."""


class InitModel(Block):
    """A Llama-architecture student made from nothing, with a byte-level BPE tokenizer trained on the run's own
    teacher solutions. For small machines and for tests of a whole run."""

    layers: Annotated[int, Field(ge=1, le=128)] = 4
    """Transformer blocks."""
    width: Annotated[int, Field(ge=16, le=16_384)] = 192
    """Size of the hidden states; a multiple of twice `heads`, as rotary embeddings turn pairs."""
    heads: Annotated[int, Field(ge=1, le=128)] = 4
    """Attention heads."""
    vocab_size: Annotated[int, Field(ge=300, le=262_144)] = 800
    """Entries of the tokenizer: 256 bytes, the special tokens and the merges that are learnt."""
    context_length: Annotated[int, Field(ge=64, le=131_072)] = 2048
    """Longest sequence in tokens. Default: SODA's training length."""


class Student(Block):
    """The small model that learns. Exactly one of `model` and `init`."""

    model: ModelRef | None = None
    """Hub id, `s3://` URL or path. SODA: codellama/CodeLlama-7b-hf, deepseek-ai/deepseek-coder-6.7b-base."""
    init: InitModel | None = None
    """Make the student from nothing instead."""
    revision: Word | None = None
    """Commit, tag or branch of a hub id. Null: the one that is current when the stage runs, which no key knows."""
    server: Server | None = None
    """Serves its checkpoints. Null: vLLM with one GPU."""
    sampling: Sampling = Sampling()
    """How it answers the questions of a round. Default: SODA 4.5."""

    @property
    def serving(self) -> Server:
        """The server of its checkpoints, the default resolved."""
        return self.server or Server()


class Judge(ServedModel):
    """The scoring model: reads a question and an answer, gives 0 to 6 points by five rules (SODA 3.3.1). Without
    `model` it starts from the untouched student."""

    ready: bool = False
    """The model already is a scoring model: use it as it is instead of training one."""
    train: JudgeTraining = JudgeTraining()
    """How the scoring model is trained, unless it is ready."""
    sampling: JudgementSampling = JudgementSampling()
    """How it draws its tokens."""
    retries: Annotated[int, Field(ge=0, le=5)] = 1
    """Second chances for a reply without readable scores."""
    retry_temperature: Temperature = 0.2
    """Temperature of the second chances."""
    yield_floor: Share = 0.1
    """A stage is stopped as soon as fewer than this share of 200 rows in a row can have readable scores; 0 never.
    Low, for a small scoring model may miss many and still sort the rest."""
