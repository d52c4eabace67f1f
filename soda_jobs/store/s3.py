"""A store in an S3 bucket, below a prefix; the only module that knows boto3.

`put_if_absent` is a PUT with `If-None-Match: *`. Whether the server honours it is tried once, on the store's
marker. On a server that does not, a look before each write takes its place: then two callers at the same instant
may both be told True, and the later one's bytes stay. Keys are made from all that decides what is written below
them, so both wrote the same thing.

`AWS_MAX_ATTEMPTS` is how often one request is tried (default 6) before it is `Retry`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Final, Literal

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    NoRegionError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
    SSLError,
)
from s3transfer.exceptions import RetriesExceededError

from soda_jobs.errors import InvalidInput, Retry
from soda_jobs.log import event
from soda_jobs.store.base import (
    MARKER,
    MARKER_DATA,
    URL_FIELD,
    NotFound,
    check_key,
    check_marker,
    check_prefix,
)
from soda_jobs.store.temporary import new_file

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_MIB: Final = 1 << 20
_PART: Final = 16 * _MIB  # boto3 makes parts larger where 10,000 of them would not do
_TRANSFER: Final = TransferConfig(multipart_threshold=_PART, multipart_chunksize=_PART, max_concurrency=4)
_READ_ATTEMPTS: Final = 3  # botocore repeats requests, but not the reading of a body
_THREADS: Final = 8

_ENDPOINT: Final = "spec.storage.endpoint"
_REGION: Final = "spec.storage.region"
_SECRET: Final = "spec.storage.secretRef"

# What a server's code means when the user must act; any other code is the server's trouble and worth a retry.
_USER_MUST_ACT: Final = {
    "NoSuchBucket": (URL_FIELD, "the bucket does not exist"),
    "InvalidBucketName": (URL_FIELD, "the bucket's name is not one S3 accepts"),
    "AccessDenied": (_SECRET, "the credentials may not do this"),
    "403": (_SECRET, "the credentials may not do this"),
    "InvalidAccessKeyId": (_SECRET, "the access key id is not known"),
    "XAdminUserNotFound": (_SECRET, "the access key id is not known"),  # versitygw
    "InvalidToken": (_SECRET, "the session token is not valid"),
    "SignatureDoesNotMatch": (_SECRET, "the secret access key is wrong"),
    "AuthorizationHeaderMalformed": (_REGION, "the region is wrong"),
    "IllegalLocationConstraintException": (_REGION, "the region is wrong"),
    "PermanentRedirect": (_REGION, "the bucket is in another region"),
    "301": (_REGION, "the bucket is in another region"),
    "MethodNotAllowed": (_ENDPOINT, "the server does not speak S3"),
    "405": (_ENDPOINT, "the server does not speak S3"),
}
_MISSING: Final = ("NoSuchKey", "404", "NotFound")
_TAKEN: Final = ("PreconditionFailed", "412")
_CONFLICT: Final = ("ConditionalRequestConflict", "409")
_NO_CONDITIONS: Final = ("NotImplemented", "501")


def connect(*, endpoint: str | None, region: str | None, path_style: bool | None, ca_file: str | None) -> S3Client:
    """A client for AWS, or for the S3 server at `endpoint`; credentials by the standard AWS chain."""
    if ca_file is not None and not Path(ca_file).is_file():
        raise InvalidInput(f"there is no file {ca_file}", field="spec.storage.caSecretRef")
    in_path = endpoint is not None if path_style is None else path_style
    checksums: Literal["when_supported", "when_required"]
    checksums = "when_supported" if endpoint is None else "when_required"  # other servers reject the trailers
    config = Config(
        retries={"mode": "standard", "total_max_attempts": int(os.environ.get("AWS_MAX_ATTEMPTS", "6"))},
        connect_timeout=10,
        read_timeout=60,
        max_pool_connections=4 * _THREADS,
        request_checksum_calculation=checksums,
        response_checksum_validation=checksums,
        s3={"addressing_style": "path" if in_path else "auto"},
    )
    try:
        session = boto3.session.Session()
        where = region or session.region_name or "us-east-1"
        return session.client("s3", endpoint_url=endpoint, region_name=where, verify=ca_file, config=config)
    except ValueError as error:
        raise InvalidInput(f"is {endpoint!r}, not the URL of a server ({error})", field=_ENDPOINT) from error
    except ProfileNotFound as error:
        raise InvalidInput(f"{error}; it is named by AWS_PROFILE", field=_SECRET) from error


class S3Store:
    """See `Store`. Opening it reads the bucket once, so that wrong settings show at once."""

    def __init__(self, client: S3Client, bucket: str, prefix: str) -> None:
        self._client = client
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._probe = Lock()
        self._conditions: bool | None = None
        self.list(MARKER)

    def get(self, key: str) -> bytes:
        name = self._name(key)
        for remaining in reversed(range(_READ_ATTEMPTS)):
            with self._faults(name):
                reply = self._client.get_object(Bucket=self._bucket, Key=name)
                try:
                    return reply["Body"].read()
                except BotoCoreError:
                    if not remaining:
                        raise
        raise AssertionError("the loop returns or raises")

    def get_file(self, key: str, path: Path) -> None:
        name, size = self._name(key), self.size(key)
        with self._faults(name), new_file(path, size=size) as file:
            self._client.download_fileobj(self._bucket, name, file, Config=_TRANSFER)

    def put(self, key: str, data: bytes) -> None:
        name = self._name(key)
        with self._faults(name):
            self._client.put_object(Bucket=self._bucket, Key=name, Body=data)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        if not self._has_conditions():
            if self.exists(key):
                return False
            self.put(key, data)
            return True
        return self._put_if_absent(self._name(key), data)

    def put_file(self, key: str, path: Path) -> None:
        name = self._name(key)
        with path.open("rb") as file, self._faults(name):
            self._client.upload_fileobj(file, self._bucket, name, Config=_TRANSFER)

    def exists(self, key: str) -> bool:
        try:
            self.size(key)
        except NotFound:
            return False
        return True

    def size(self, key: str) -> int:
        name = self._name(key)
        with self._faults(name):
            return self._client.head_object(Bucket=self._bucket, Key=name)["ContentLength"]

    def list(self, prefix: str) -> list[str]:
        check_prefix(prefix, may_be_empty=True)
        pages = self._client.get_paginator("list_objects_v2")
        keys = []
        name = self._prefix + prefix
        with self._faults(name):
            for page in pages.paginate(Bucket=self._bucket, Prefix=name):
                keys += [item["Key"].removeprefix(self._prefix) for item in page.get("Contents", ())]
        return sorted(key for key in keys if key != MARKER)

    def delete(self, prefix: str) -> None:
        check_prefix(prefix, may_be_empty=False)
        keys = self.list(prefix)
        with ThreadPoolExecutor(_THREADS) as pool:
            list(pool.map(self._delete, keys))

    def _delete(self, key: str) -> None:
        # One by one: deleting many at once needs a checksum that not every server takes.
        name = self._name(key)
        with self._faults(name):
            self._client.delete_object(Bucket=self._bucket, Key=name)

    def _name(self, key: str) -> str:
        return self._prefix + check_key(key)

    def _has_conditions(self) -> bool:
        """Whether the server honours `If-None-Match: *`: the store's marker is written, and not written again."""
        with self._probe:
            if self._conditions is None:
                self._conditions = self._try_conditions()
                if self._conditions:
                    check_marker(self.get(MARKER))
                else:
                    event("store_without_conditional_writes", bucket=self._bucket)
            return self._conditions

    def _try_conditions(self) -> bool:
        name = self._name(MARKER)
        try:
            return not (self._put_if_absent(name, MARKER_DATA) and self._put_if_absent(name, MARKER_DATA))
        except _NoConditions:
            self.put(MARKER, MARKER_DATA)
            return False

    def _put_if_absent(self, name: str, data: bytes) -> bool:
        for _ in range(_READ_ATTEMPTS):
            try:
                with self._faults(name):
                    self._client.put_object(Bucket=self._bucket, Key=name, Body=data, IfNoneMatch="*")
                return True
            except _Taken:
                return False
            except _Conflict:
                continue
        raise Retry(f"s3://{self._bucket}/{name}: others are writing the same object")

    @contextmanager
    def _faults(self, name: str) -> Iterator[None]:
        """Turn what S3 says into what the caller should do."""
        where = f"s3://{self._bucket}/{name}"
        try:
            yield
        except ClientError as error:
            raise _of_reply(error, name.removeprefix(self._prefix), where) from error
        except (NoCredentialsError, PartialCredentialsError) as error:
            why = f"{where} needs credentials: {error}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            raise InvalidInput(why, field=_SECRET) from error
        except CredentialRetrievalError as error:
            raise Retry(f"{where} needs credentials, which could not be fetched: {error}") from error
        except SSLError as error:
            why = f"the server's certificate is not trusted: {error}"
            raise InvalidInput(why, field="spec.storage.caSecretRef") from error
        except (ParamValidationError, NoRegionError) as error:
            raise InvalidInput(f"{where} cannot be used: {error}", field=URL_FIELD) from error
        except (BotoCoreError, RetriesExceededError) as error:
            raise Retry(f"{where} cannot be reached at {self._client.meta.endpoint_url}: {error}") from error
        except OSError as error:
            raise Retry(f"a local file failed while {where} was copied: {error}") from error


class _Taken(Exception):
    """There is an object under the name."""


class _Conflict(Exception):
    """Another conditional write of the name is under way."""


class _NoConditions(Exception):
    """The server refuses conditional writes."""


def _of_reply(error: ClientError, key: str, where: str) -> Exception:
    """What the server's refusal means."""
    reply = error.response
    code, status = reply["Error"].get("Code", ""), reply["ResponseMetadata"].get("HTTPStatusCode", 0)
    conditional = error.operation_name == "PutObject"
    if code in _MISSING:
        return NotFound(key)
    if conditional and code in _TAKEN:
        return _Taken()
    if conditional and code in _CONFLICT:
        return _Conflict()
    if conditional and code in _NO_CONDITIONS:
        return _NoConditions()
    if code in _USER_MUST_ACT:
        field, sentence = _USER_MUST_ACT[code]
        return InvalidInput(f"{sentence}: {where} ({code}, {error.operation_name})", field=field)
    return Retry(f"{where} failed with {code} (HTTP {status}) in {error.operation_name}")
