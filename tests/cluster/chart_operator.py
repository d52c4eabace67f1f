"""The real operator as the chart installs it, as a process on this machine: the environment of the rendered
Deployment, the token of its ServiceAccount, and a proxy that can keep watch events from it.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from aiohttp import web

from soda_operator.cluster import Cluster as Api
from tests.cluster import chart
from tests.cluster.audited import Audited
from tests.cluster.player import Player
from tests.cluster.processes import free_port

HOP = {"host", "transfer-encoding", "content-length", "connection", "content-encoding", "accept-encoding"}


GONE = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Expired", "code": 410}
EXPIRED = json.dumps({"type": "ERROR", "object": GONE}).encode() + b"\n"


class Background:
    """An event loop in a thread, so that a test can be written as steps."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def call(self, work: Coroutine[Any, Any, Any], seconds: float = 30) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(seconds)

    def spawn(self, work: Coroutine[Any, Any, Any]) -> Callable[[], None]:
        """Starts it; the returned function ends it."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        return lambda: None if future.cancel() else future.result()

    def stop(self) -> None:
        self.call(_cancel_others())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


async def _cancel_others() -> None:
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)


class Proxy:
    """Passes requests on to the API server. While `deaf`, events of watches of Jobs and pods are lost; after
    `expire` no watch can go on where it was, as when etcd was compacted meanwhile."""

    def __init__(self, plane: Audited) -> None:
        self._target = plane.server
        self._context = ssl.create_default_context(cafile=str(plane.authority.ca.certificate))
        self.port = free_port()
        self.deaf = False
        self.lost = 0
        self._watches: dict[asyncio.BaseTransport, str] = {}
        self._expired: set[str] = set()

    async def expire(self) -> None:
        self._expired |= set(self._watches.values())
        for transport in list(self._watches):
            transport.close()

    async def start(self) -> None:
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None))
        app = web.Application(client_max_size=1 << 26)
        app.router.add_route("*", "/{path:.*}", self._pass)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()

    async def stop(self) -> None:
        await self._runner.cleanup()
        await self._session.close()

    async def _pass(self, request: web.Request) -> web.StreamResponse:
        try:
            return await self._forward(request)
        except (ConnectionError, aiohttp.ClientConnectionError):  # one of the two sides went away
            if request.transport is not None:
                request.transport.close()
            return web.Response(status=502)

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP}
        async with self._session.request(
            request.method,
            f"{self._target}{request.raw_path}",
            headers=headers,
            data=await request.read() or None,
            skip_auto_headers=["Content-Type", "User-Agent"],
            ssl=self._context,
        ) as answer:
            passed = {name: value for name, value in answer.headers.items() if name.lower() not in HOP}
            response = web.StreamResponse(status=answer.status, headers=passed)
            await response.prepare(request)
            if "watch" in request.query:
                await self._tell(request, answer, response)
                return response
            async for part in answer.content.iter_any():
                await response.write(part)
            await response.write_eof()
            return response

    async def _tell(
        self, request: web.Request, answer: aiohttp.ClientResponse, response: web.StreamResponse
    ) -> None:
        transport = request.transport
        assert transport is not None
        if request.path in self._expired:
            self._expired.remove(request.path)
            await response.write(EXPIRED)
            return
        self._watches[transport] = request.path
        try:
            async for line in _lines(answer.content):
                if self.deaf and request.path.endswith(("/jobs", "/pods")):
                    self.lost += 1
                else:
                    await response.write(line)
            await response.write_eof()
        finally:
            del self._watches[transport]


async def _lines(stream: aiohttp.StreamReader) -> Any:
    rest = b""
    async for part in stream.iter_any():
        *whole, rest = (rest + part).split(b"\n")
        for line in whole:
            yield line + b"\n"


class Live:
    """A release with its operator running, and a kubelet played for its runs."""

    def __init__(self, plane: Audited, namespace: str, folder: Path, background: Background) -> None:
        self.plane, self.namespace, self.folder = plane, namespace, folder
        self.proxy = Proxy(plane)
        self.background = background
        self.port = free_port()
        self.reload()
        self.account = chart.one(self.objects, "ServiceAccount")["metadata"]["name"]
        self.user = f"system:serviceaccount:{namespace}:{self.account}"
        self.process: subprocess.Popen[bytes] | None = None

    def reload(self) -> None:
        """Take up what helm last installed."""
        words = ["get", "manifest", "one", "-n", self.namespace]
        manifest = chart.helm(*words, kubeconfig=self.plane.kubeconfig)
        self.objects = [item for item in yaml.safe_load_all(manifest) if item]

    def start(self) -> None:
        deployment = chart.one(self.objects, "Deployment")
        [container] = deployment["spec"]["template"]["spec"]["containers"]
        given = {name: value for name, value in chart.environment(deployment).items() if isinstance(value, str)}
        mine = {
            "KUBECONFIG": str(self._kubeconfig()),
            "POD_NAMESPACE": self.namespace,
            "POD_NAME": f"pod-{uuid.uuid4().hex[:5]}",
            "SODA_PORT": str(self.port),
            "SODA_HOST": "127.0.0.1",
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{chart.ROOT}:{chart.ROOT}/operator",
            "HOME": "/tmp",
        }
        with (self.folder / "operator.log").open("ab") as log:
            argv = [sys.executable, *container["command"][1:]]
            self.process = subprocess.Popen(argv, env={**given, **mine}, stdout=log, stderr=log, cwd=self.folder)

    def stop(self) -> None:
        """As a kubelet ends it; it must be done within the time that the chart gives it."""
        if self.process is None:
            return
        deployment = chart.one(self.objects, "Deployment")
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"])
        finally:
            self.process.kill()
            self.process.wait()
            self.process = None

    def log(self) -> str:
        return (self.folder / "operator.log").read_text()

    def leads(self) -> bool:
        """Whether the operator answers and holds its Lease."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as answer:
                return "\nsoda_leader 1.0\n" in answer.read().decode()
        except OSError:  # it is still starting
            return False

    def run(self, done: Callable[[Any], bool], seconds: float = 240, name: str = "quickstart") -> Any:
        """The run once `done(status)` holds."""

        def looks(found: Any) -> bool:
            assert self.process is not None
            assert self.process.poll() is None, f"the operator ended:\n{self.log()[-3000:]}"
            return done(found.get("status") or {})

        return self.plane.wait(
            looks,
            "distillationrun",
            name,
            namespace=self.namespace,
            seconds=seconds,
        )

    def patch(self, spec: dict[str, Any], name: str = "quickstart") -> None:
        words = ["patch", "distillationrun", name, "-n", self.namespace, "--type=merge"]
        self.plane.kubectl(*words, "-p", json.dumps({"spec": spec}))

    def jobs(self) -> dict[str, Any]:
        listed = self.plane.get("jobs", "-l", "soda.dev/run", namespace=self.namespace)["items"]
        return {item["metadata"]["name"]: item for item in listed}

    def await_job(self, part: str, seconds: float = 240) -> str:
        """The name of a Job with an active pod, once there is one whose name holds `part`."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for name, job in self.jobs().items():
                if part in name and job.get("status", {}).get("ready"):
                    return name
            time.sleep(0.2)
        raise TimeoutError(
            f"no Job {part!r} runs within {seconds:g} s: {sorted(self.jobs())}\n{self.log()[-2000:]}"
        )

    def _kubeconfig(self) -> Path:
        token = self.plane.kubectl("create", "token", self.account, "-n", self.namespace).strip()
        path = self.folder / "operator.kubeconfig"
        path.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [{"name": "it", "cluster": {"server": f"http://127.0.0.1:{self.proxy.port}"}}],
                    "users": [{"name": "it", "user": {"token": token}}],
                    "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
                    "current-context": "it",
                }
            )
        )
        return path


@contextmanager
def live(plane: Audited, namespace: str, folder: Path) -> Iterator[tuple[Live, Player]]:
    """The release `one` of a namespace, its operator started, its pods played."""
    background = Background()
    found = Live(plane, namespace, folder, background)
    api = background.call(Api.connect(str(plane.kubeconfig)))
    player = Player(api, namespace)
    background.call(found.proxy.start())
    stop_playing = background.spawn(player.play())
    try:
        found.start()
        yield found, player
    finally:
        try:
            found.stop()
        finally:
            stop_playing()
            background.call(found.proxy.stop())
            background.call(api.close())
            background.stop()
