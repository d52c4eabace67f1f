"""What a run's pods ask of a cluster, by role. A laptop ignores all of it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from soda_jobs.spec.base import (
    Block,
    DnsName,
    EnvName,
    ImageRef,
    LabelKey,
    LabelValue,
    Note,
    Quantity,
    SecretKey,
    SecretKeyRef,
)

# Keys of maps are checked by a rule: a CRD has no place for what it could say about them.
NodeSelector = Annotated[dict[str, LabelValue], Field(max_length=16)]


class Resources(Block):
    """Amounts of a pod's resources, as Kubernetes writes them."""

    cpu: Quantity | None = None
    """Processors, as in 2 or 500m."""
    memory: Quantity | None = None
    """Memory, as in 4Gi."""
    ephemeral_storage: Quantity | None = None
    """Disk of the node for caches and work in progress, as in 50Gi."""


class Toleration(Block):
    """Lets pods onto nodes with a taint."""

    key: LabelKey | None = None
    """Key of the taint. Null: every taint."""
    operator: Literal["Exists", "Equal"] = "Equal"
    """`Exists` ignores the value."""
    value: LabelValue | None = None
    """Value of the taint, for `Equal`."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Effect of the taint. Null: every effect."""
    toleration_seconds: Annotated[int, Field(ge=0, le=604_800)] | None = None
    """How long a pod stays once the taint appears, for `NoExecute`. Null: for ever."""


class NodeRequirement(Block):
    """One requirement on a node's labels; a node must meet all of them."""

    key: LabelKey
    """Label of the node."""
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"] = "In"
    """How the label is compared."""
    values: Annotated[tuple[LabelValue, ...], Field(max_length=64, strict=False)] = ()
    """Values to compare with."""


class EnvVar(Block):
    """An environment variable: a value, or one key of a Secret."""

    name: EnvName
    """Name of the variable."""
    value: Note | None = None
    """Its value."""
    secret_ref: SecretKeyRef | None = None
    """The Secret's key to take the value from instead."""


class PodSettings(Block):
    """Where and how the pods of one role run. Everything else about them is soda's, and passes Pod Security
    `restricted`."""

    image: ImageRef | None = None
    """Container image. Null: the one the operator was installed with."""
    requests: Resources = Resources()
    """What is reserved for a pod. Null amounts: the role's default."""
    limits: Resources = Resources()
    """What a pod may use at most. Null amounts: no limit, except for sandboxes."""
    node_selector: NodeSelector = Field(default_factory=dict)
    """Labels that a node must have."""
    node_affinity: Annotated[tuple[NodeRequirement, ...], Field(max_length=16, strict=False)] = ()
    """Further requirements on a node's labels."""
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=16, strict=False)] = ()
    """Taints that do not keep the pods away."""
    priority_class_name: DnsName | None = None
    """PriorityClass of the pods. Null: the cluster's default."""
    service_account_name: DnsName | None = None
    """ServiceAccount, for a cloud's workload identity. Null: one of the run's own, without any right."""
    image_pull_secrets: Annotated[tuple[DnsName, ...], Field(max_length=8, strict=False)] = ()
    """Secrets for pulling the image."""
    env: Annotated[tuple[EnvVar, ...], Field(max_length=64, strict=False)] = ()
    """Further environment variables."""
    annotations: Annotated[dict[str, Note], Field(max_length=16)] = Field(default_factory=dict)
    """Annotations of the pods, as for topology-aware scheduling."""


class Pods(Block):
    """Pod settings of each role."""

    jobs: PodSettings = PodSettings()
    """Stages that only talk to servers and to the store."""
    train: PodSettings = PodSettings()
    """Training."""
    teacher: PodSettings = PodSettings()
    """Servers of the teacher."""
    student: PodSettings = PodSettings()
    """Servers of the student's checkpoints."""
    judge: PodSettings = PodSettings()
    """Servers of the scoring model."""
    sandbox: PodSettings = PodSettings()
    """Sandboxes, where programs that models wrote are run."""


class HubTokenRef(SecretKeyRef):
    """The token of a hub in a Secret in the run's namespace."""

    key: SecretKey = "HF_TOKEN"
    """Key in the Secret that holds the token."""


class Hub(Block):
    """The hub that models and datasets named by a hub id come from."""

    token_ref: HubTokenRef | None = None
    """Secret with a token for gated models. Null: none."""
