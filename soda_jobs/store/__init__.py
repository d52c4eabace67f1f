"""Where artifacts live: a folder or an S3 bucket, behind nine verbs. A URL goes in, a `Store` comes out.

    store = open_store("s3://bucket/prefix", endpoint="https://s3.example.org")
    store.put_if_absent("artifacts/<key>/manifest.json", data)

Credentials are never part of a URL. S3 finds them the way every AWS tool does: the environment
(`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`), a web identity, `~/.aws`, the machine's role.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from soda_jobs.errors import InvalidInput
from soda_jobs.store.base import URL_FIELD, NotFound, Store
from soda_jobs.store.file import FileStore

__all__ = ["NotFound", "Store", "open_store"]


def open_store(
    url: str,
    *,
    endpoint: str | None = None,
    region: str | None = None,
    path_style: bool | None = None,
    ca_file: str | None = None,
    create: bool = True,
) -> Store:
    """Open the store at `url`: a folder, `file:///folder`, or `s3://bucket/prefix`.

    `endpoint`, `region`, `path_style` and `ca_file` are for S3 servers that are not AWS; `path_style` None means
    yes if an endpoint is given. With `create` false a folder that is not yet a store is `Retry`: whoever joins a
    run in progress must not take the empty folder below a vanished mount for a new store.
    """
    parts = urlsplit(url)
    if "@" in parts.netloc:
        raise InvalidInput("has credentials in it; they belong into the environment", field=URL_FIELD)
    if parts.query or parts.fragment:
        raise InvalidInput(f"is {url!r}; it may not have a '?' or '#'", field=URL_FIELD)
    if parts.scheme == "s3":
        return _open_s3(parts.netloc, parts.path.strip("/"), endpoint, region, path_style, ca_file)
    if parts.scheme == "file" and parts.netloc in ("", "localhost") and parts.path.startswith("/"):
        return FileStore(Path(parts.path), create=create)
    if "://" not in url and url and parts.scheme != "file":
        return FileStore(Path(url).absolute(), create=create)
    accepted = "a folder, file:///folder, s3://bucket or s3://bucket/prefix"
    raise InvalidInput(f"is {url!r}; accepted are {accepted}", field=URL_FIELD)


def _open_s3(
    bucket: str,
    prefix: str,
    endpoint: str | None,
    region: str | None,
    path_style: bool | None,
    ca_file: str | None,
) -> Store:
    from soda_jobs.store.s3 import S3Store, connect  # boto3 takes half a second to import

    if not bucket:
        raise InvalidInput("names no bucket; accepted is s3://bucket or s3://bucket/prefix", field=URL_FIELD)
    client = connect(endpoint=endpoint, region=region, path_style=path_style, ca_file=ca_file)
    return S3Store(client, bucket, prefix)
