"""What all blocks of a spec share: how they are read, the bounded text types, and how a value is shown."""

from __future__ import annotations

import json
from typing import Annotated, Any, Final, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

Language = Literal["python", "java", "javascript", "c", "cpp", "go", "typescript", "rust", "ruby"]
LANGUAGES: Final[tuple[Language, ...]] = get_args(Language)
SODA_LANGUAGES: Final[tuple[Language, ...]] = ("python", "java", "javascript", "c", "cpp", "go")


class Block(BaseModel):
    """A block of the spec: immutable, unknown keys refused, no conversion between types, finite numbers only.

    Keys are camelCase in YAML and snake_case in Python.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        alias_generator=to_camel,
        validate_by_alias=True,
        validate_by_name=True,
        use_attribute_docstrings=True,
    )


_BUCKET: Final = "[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"
_HUB: Final = "[A-Za-z0-9][A-Za-z0-9_.-]*(/[A-Za-z0-9][A-Za-z0-9_.-]*)?"

RUN_NAME: Final = "^[a-z]([a-z0-9-]*[a-z0-9])?$"
DNS_NAME: Final = "^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$"
DNS_LABEL: Final = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"
SECRET_KEY: Final = "^[A-Za-z0-9._-]+$"
MODEL: Final = rf"^(s3://{_BUCKET}(/\S*)?|\.?\.?/\S+|{_HUB})$"
SOURCE: Final = rf"^(builtin:tutor|hf:{_HUB}|s3://{_BUCKET}/\S+|[^:\s][^:]*)$"
HTTP_URL: Final = r"^https?://[^\s/?#]+(/\S*)?$"
STORE: Final = rf"^(s3://{_BUCKET}(/\S*)?|file:///\S+|[^:\s][^:]*)$"
LABEL_KEY: Final = "^([a-z0-9]([a-z0-9.-]*[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$"
LABEL_VALUE: Final = "^([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?)?$"
IMAGE: Final = r"^[a-z0-9][A-Za-z0-9._/:@-]*$"
QUANTITY: Final = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$"
ENV_NAME: Final = "^[A-Za-z_][A-Za-z0-9_]*$"
WORD: Final = "^[A-Za-z0-9][A-Za-z0-9_.-]*$"

# What each pattern accepts, in words: the only form of it that a user sees.
PATTERN_WORDS: Final[dict[str, str]] = {
    RUN_NAME: "lower-case letters, digits and '-', starting with a letter, ending with a letter or digit",
    DNS_NAME: "lower-case letters, digits, '-' and '.', starting and ending with a letter or digit",
    DNS_LABEL: "lower-case letters, digits and '-', starting and ending with a letter or digit",
    SECRET_KEY: "letters, digits, '-', '_' and '.'",
    MODEL: "a hub id as in owner/name, an s3://bucket/prefix URL, or a path that starts with / or ./",
    SOURCE: "a path, s3://bucket/key, hf:owner/dataset or builtin:tutor",
    HTTP_URL: "a URL as in https://host/v1",
    STORE: "s3://bucket/prefix, file:///folder, or the path of a folder",
    LABEL_KEY: "a label key as in team or example.com/team",
    LABEL_VALUE: "letters, digits, '-', '_' and '.', starting and ending with a letter or digit",
    IMAGE: "a container image as in registry.example.com/soda/jobs:1.0 or with @sha256:...",
    QUANTITY: "an amount as Kubernetes writes it, as in 500m, 2 or 4Gi",
    ENV_NAME: "letters, digits and '_', not starting with a digit",
    WORD: "letters, digits, '-', '_' and '.', starting with a letter or digit",
}

RunName = Annotated[str, Field(pattern=RUN_NAME, max_length=63)]
DnsName = Annotated[str, Field(pattern=DNS_NAME, max_length=253)]
DnsLabel = Annotated[str, Field(pattern=DNS_LABEL, max_length=63)]
SecretKey = Annotated[str, Field(pattern=SECRET_KEY, max_length=253)]
ModelRef = Annotated[str, Field(pattern=MODEL, max_length=512)]
SourceRef = Annotated[str, Field(pattern=SOURCE, max_length=1024)]
HttpUrl = Annotated[str, Field(pattern=HTTP_URL, max_length=1024)]
StoreUrl = Annotated[str, Field(pattern=STORE, max_length=1024)]
LabelValue = Annotated[str, Field(pattern=LABEL_VALUE, max_length=63)]
LabelKey = Annotated[str, Field(pattern=LABEL_KEY, max_length=317)]
ImageRef = Annotated[str, Field(pattern=IMAGE, max_length=512)]
Quantity = Annotated[str, Field(pattern=QUANTITY, max_length=32)]
EnvName = Annotated[str, Field(pattern=ENV_NAME, max_length=128)]
Word = Annotated[str, Field(pattern=WORD, max_length=128)]
Argument = Annotated[str, Field(min_length=1, max_length=512)]
Note = Annotated[str, Field(max_length=4096)]


class SecretRef(Block):
    """A Secret in the run's namespace."""

    name: DnsName
    """Name of the Secret."""


class SecretKeyRef(SecretRef):
    """One key of a Secret in the run's namespace."""

    key: SecretKey = "OPENAI_API_KEY"
    """Key in the Secret that holds the API key. On a laptop, the environment variable of this name is read."""


def show(value: Any, limit: int = 60) -> str:
    """A value as a user would write it, on one line, shortened to about `limit` characters."""
    if isinstance(value, Block):
        value = value.model_dump(mode="json", by_alias=True, exclude_unset=True)
    if value is None:
        return "null"
    if isinstance(value, str) and value and value.isprintable() and value == value.strip():
        text = value
    else:
        text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
