"""A real S3 server for tests: versitygw on a folder, built once by Go from the versions in go.mod and go.sum.

A test module that needs it says `pytest_plugins = ["tests.s3server.plugin"]`. The program is kept in `$SODA_CACHE`
or `~/.cache/soda`; the first build takes two to three minutes of CPU time.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from tests import gobuild

HERE = Path(__file__).parent
ACCESS_KEY, SECRET_KEY = "soda-test", "soda-test-secret"


@dataclass
class S3Server:
    """One server: `start`, `kill -9`, and `start` again on the same port and folder."""

    program: Path
    folder: Path
    port: int
    host: str = "127.0.0.1"
    tls: tuple[Path, Path] | None = None  # certificate and private key
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def endpoint(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.host}:{self.port}"

    def start(self) -> None:
        tls = ["--cert", self.tls[0], "--key", self.tls[1]] if self.tls else []
        argv = [self.program, "--quiet", "--port", f"{self.host}:{self.port}", *tls, "posix", self.folder]
        env = {"ROOT_ACCESS_KEY": ACCESS_KEY, "ROOT_SECRET_KEY": SECRET_KEY, "PATH": os.environ["PATH"]}
        with (self.folder.parent / "log").open("ab") as log:
            self.process = subprocess.Popen(argv, env=env, stdout=log, stderr=log)
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex((self.host, self.port)) == 0:
                    return
            assert self.process.poll() is None, (self.folder.parent / "log").read_text()
            time.sleep(0.05)
        raise TimeoutError(f"versitygw did not listen on {self.endpoint} within 10 s")

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def client(self) -> Any:
        """A boto3 client that this server lets in; the caller closes it."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            verify=self.tls[0] if self.tls else None,
            config=Config(s3={"addressing_style": "path"}),
        )

    def make_bucket(self, name: str) -> None:
        with closing(self.client()) as client:
            client.create_bucket(Bucket=name)


def build() -> Path:
    """The versitygw program, built now if it is not in the cache."""
    return gobuild.build(HERE, "github.com/versity/versitygw/cmd/versitygw", "versitygw")


@pytest.fixture(scope="session")
def s3_program() -> Path:
    return build()


@pytest.fixture(scope="session")
def start_s3(s3_program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., S3Server]]:
    """Starts a further server, for a test that kills it or wants TLS."""
    servers: list[S3Server] = []

    def start(tls: tuple[Path, Path] | None = None) -> S3Server:
        folder = tmp_path_factory.mktemp("s3") / "data"
        folder.mkdir()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        servers.append(S3Server(s3_program, folder, port, tls=tls))
        servers[-1].start()
        return servers[-1]

    yield start
    for server in servers:
        server.kill()


@pytest.fixture(scope="session")
def s3_server(start_s3: Callable[..., S3Server]) -> S3Server:
    """A server that all tests share."""
    return start_s3()


@pytest.fixture
def s3_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment that the server accepts, and nothing of the machine's own AWS settings."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
