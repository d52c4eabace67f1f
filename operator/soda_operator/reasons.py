"""The table of reasons: why something waits or failed. `docs/troubleshooting.md` is made from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["wait", "block", "retry", "fatal"]


@dataclass(frozen=True, slots=True)
class Row:
    """One reason. `kind`: `wait` ends by itself, `block` needs a person and then goes on, `retry` is tried again a
    few times and then ends the run, `fatal` ends it at once. `sign` is what the cluster says: a pattern for its
    reason and message."""

    reason: str
    kind: Kind
    what: str
    step: str
    sign: str = ""


# What keeps a pod from starting. The first row whose sign is found in "reason: message" is the answer.
WAITING: Final = (
    Row(
        "RuntimeClassMissing",
        "block",
        "the cluster has no such RuntimeClass, and programs that models wrote only run inside it",
        "install gVisor and its RuntimeClass, or name yours in spec.execution.runtimeClassName",
        r"RuntimeClass .*not found|no runtime for .* is configured|unknown handler|RuntimeHandler .*not supported",
    ),
    Row(
        "QuotaExceeded",
        "wait",
        "the namespace's ResourceQuota is used up",
        "raise the quota, or wait until something else ends",
        r"exceeded quota|failed quota",
    ),
    Row(
        "LimitRangeRefused",
        "block",
        "a LimitRange of the namespace does not allow the pod",
        "change spec.pods.<role>.requests and limits, or the LimitRange",
        r"(maximum|minimum) .* usage per (Pod|Container)|limit to request ratio",
    ),
    Row(
        "PodSecurityRefused",
        "block",
        "Pod Security does not allow the pod",
        "use a namespace that allows the level restricted, and check policies of your own",
        r"violates PodSecurity",
    ),
    Row(
        "ServiceAccountMissing",
        "block",
        "the ServiceAccount does not exist",
        "make it, or change spec.pods.<role>.serviceAccountName",
        r"serviceaccount .*not found",
    ),
    Row(
        "PriorityClassMissing",
        "block",
        "the PriorityClass does not exist",
        "make it, or change spec.pods.<role>.priorityClassName",
        r"no PriorityClass with name",
    ),
    Row(
        "SecretKeyMissing",
        "block",
        "a Secret lacks a key that the pod needs",
        "add the key to the Secret, or change the secretRef in the spec",
        r"couldn't find key .* in Secret|references non-existent secret key",
    ),
    Row(
        "SecretMissing",
        "block",
        "a Secret that the run names does not exist in its namespace",
        "make the Secret, or change the secretRef in the spec",
        r"secret \S+ not found",
    ),
    Row(
        "ImageNameInvalid",
        "block",
        "the image's name cannot be read",
        "change spec.pods.<role>.image",
        r"InvalidImageName",
    ),
    Row(
        "ImagePullFailed",
        "block",
        "the image cannot be pulled",
        "check the image's name, the registry and spec.pods.<role>.imagePullSecrets",
        r"ErrImagePull|ImagePullBackOff|ErrImageNeverPull|RegistryUnavailable|SignatureValidationFailed",
    ),
    Row(
        "VolumeNotMounted",
        "block",
        "a volume cannot be mounted",
        "read the message; a missing Secret or a full node are the usual causes",
        r"FailedMount|FailedAttachVolume|MountVolume",
    ),
    Row(
        "SandboxRuntimeFailed",
        "block",
        "the node cannot start the container runtime of the pod",
        "check gVisor on that node; its RuntimeClass handler must be known to containerd there",
        r"FailedCreatePodSandBox|FailedCreatePodSandbox",
    ),
    Row(
        "ContainerNotCreated",
        "block",
        "the node cannot create the container",
        "read the message; the image or its settings do not fit the node",
        r"CreateContainerConfigError|CreateContainerError|RunContainerError|StartError",
    ),
    Row(
        "QueueMissing",
        "block",
        "Kueue has no such LocalQueue in the namespace, or it is stopped",
        "make the LocalQueue, or change spec.queue",
        r"LocalQueue .*(doesn't exist|does not exist|is inactive|is stopped)"
        r"|ClusterQueue .*(doesn't exist|is inactive)",
    ),
    Row(
        "QueueTooSmall",
        "block",
        "all of the Kueue queue's quota is less than the Job asks for",
        "raise the quota of the ClusterQueue, or lower spec.pods.<role>.requests and the GPUs in the spec",
        r"^Kueue: (?!.*insufficient unused quota).*(request > maximum capacity|unavailable in ClusterQueue)",
    ),
    Row(
        "WaitingForQueue",
        "wait",
        "the Job waits in its Kueue queue",
        "wait, raise spec.priority, or raise the quota: a stage and its servers need theirs together",
        r"^Kueue",
    ),
    Row(
        "GpuUnavailable",
        "wait",
        "no node has the GPUs free",
        "wait, add nodes, or ask for fewer GPUs in the spec",
        r"Insufficient nvidia\.com/gpu",
    ),
    Row(
        "Unschedulable",
        "wait",
        "no node fits the pod now",
        "wait, add nodes, or change spec.pods.<role>",
        r"^Unschedulable",
    ),
    Row(
        "NameTaken",
        "block",
        "there is an object of the same name that is not the run's",
        "delete that object, or give this run another name",
        r"^NameTaken",
    ),
    Row(
        "ObjectRefused",
        "block",
        "the API server does not accept an object of the run",
        "read the message; a policy or a webhook of the cluster refuses it, or a webhook does not answer",
        r"^Refused",
    ),
    Row(
        "PodsNotCreated",
        "block",
        "the Job has no pod",
        "read the message; if there is none, check that the cluster's Job controller and its webhooks work",
        r"FailedCreate|^NoPods",
    ),
)

# What ended a pod that had started: by exit code, by what Kubernetes says, or by what the operator decided.
ENDED: Final = (
    Row("Preempted", "retry", "a pod with a higher priority took its place", "nothing; it is started again"),
    Row("Evicted", "retry", "the node gave the pod up", "nothing; it is started again"),
    Row("OutOfMemory", "fatal", "it used more memory than its limit", "raise spec.pods.<role>.limits.memory"),
    Row("InvalidInput", "fatal", "the input is wrong", "change what the message names, and make a new run"),
    Row("GaveUp", "fatal", "trying again would end the same way", "read the message and the stage's log"),
    Row("Bug", "fatal", "soda itself failed", "report it with the log: kubectl soda logs RUN STAGE"),
    Row("Unavailable", "retry", "something outside stayed away", "bring it back, then set a new spec.retryToken"),
    Row(
        "SandboxNotIsolated",
        "fatal",
        "a program could have left its sandbox, so none was run",
        "check the RuntimeClass and the NetworkPolicy; there is no fallback",
    ),
    Row("Killed", "retry", "it was killed each time", "read the stage's log, then set a new spec.retryToken"),
    Row(
        "StartDeadline",
        "retry",
        "it was not ready within the start-up deadline",
        "read its log; a large model may need a longer deadline of the operator",
    ),
    Row(
        "NoProgress",
        "retry",
        "it made no progress for too long",
        "read its log, then set a new spec.retryToken",
    ),
    Row("ResultMissing", "retry", "its pod is gone without a result", "set a new spec.retryToken"),
    Row("TooManyAttempts", "fatal", "its Jobs were used up", "make a new run; it reuses what is committed"),
)

# What the operator itself refuses or decides about the run as a whole.
DECIDED: Final = (
    Row("InvalidSpec", "block", "the spec has mistakes", "change the fields that the message names"),
    Row(
        "StorageMissing",
        "block",
        "the run names no S3 storage and the operator was installed without one",
        "set spec.storage.url to s3://bucket/prefix, or install the operator with a storage of its own",
    ),
    Row("Suspended", "wait", "spec.suspend is true", "set it to false to go on"),
    Row("BudgetExhausted", "block", "a limit of spec.budget is reached", "raise it to go on"),
    Row("Cancelled", "fatal", "spec.cancel is true", "set a new spec.retryToken and cancel to false to go on"),
)

TABLE: Final = {row.reason: row for row in (*WAITING, *ENDED, *DECIDED)}
