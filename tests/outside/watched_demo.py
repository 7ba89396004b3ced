"""A demo under load, with a real Prometheus that scrapes it: for the dashboards' test, and for the pictures in docs/.

python -m tests.outside.watched_demo   draws docs/images/metrics-*.svg
"""

import asyncio
import base64
import contextlib
import json
import random
import re
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from fastapi import FastAPI, Response

from sandbox.serving import bind, reserved, serving
from tests.e2e.demo_process import Demo, running_demo
from tests.outside.drawing import Line, draw

ROOT = Path(__file__).resolve().parents[2]
DASHBOARD = ROOT / "deploy/grafana/broker.json"
PICTURES = {
    "Requests by route": "requests",
    "Latency of mints": "latency",
    "Calls by operation and outcome": "stackone",
    "Budget of calls": "budget",
    "Reads of accounts": "reads",
    "Behind": "push",
}
_POLICY = """\
[[rule]]
name = "no salesforce"
owners = ["*"]
providers = ["bamboohr", "workday", "hibob"]
multiple = true
"""
_EVERY_SECONDS = 1


@dataclass
class Watched:
    """The demo, and the Prometheus that scrapes it."""

    demo: Demo
    prometheus: httpx2.AsyncClient

    async def ask(self, expression: str) -> list[dict[str, Any]]:
        """Return what a query finds now."""
        answer = await self.prometheus.get("/api/v1/query", params={"query": expression})
        assert answer.status_code == 200, answer.text
        return list(answer.json()["data"]["result"])

    async def firing(self) -> set[str]:
        """Return the alerts that fire now."""
        alerts = (await self.prometheus.get("/api/v1/alerts")).json()["data"]["alerts"]
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}

    async def switch(self, path: str, body: dict[str, Any]) -> None:
        """Turn one of the emulator's switches."""
        async with httpx2.AsyncClient(base_url=self.demo["stackone"], verify=False) as stackone:
            key = {"x-sandbox-key": self.demo["sandbox_key"]}
            assert (await stackone.post(f"/_sandbox{path}", json=body, headers=key)).is_success

    async def range(self, expression: str, seconds: float) -> list[dict[str, Any]]:
        """Return what a query found in the last seconds."""
        end = time.time()
        parameters: dict[str, str | float] = {"query": expression, "start": end - seconds, "end": end, "step": 1}
        answer = await self.prometheus.get("/api/v1/query_range", params=parameters)
        assert answer.status_code == 200, answer.text
        return list(answer.json()["data"]["result"])


def panels() -> list[dict[str, Any]]:
    """Return the panels that have queries."""
    board = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    return [panel for panel in board["panels"] if panel.get("targets")]


def as_asked(expression: str) -> str:
    """Return a panel's query as Grafana would send it to a Prometheus that scrapes every second."""
    return expression.replace("$__rate_interval", f"{10 * _EVERY_SECONDS}s")


@contextlib.asynccontextmanager
async def watched_demo(folder: Path) -> AsyncIterator[Watched]:
    """Start a demo that pushes to a destination here, and a Prometheus that scrapes it."""
    policy = folder / "policy.toml"
    policy.write_text(_POLICY)
    receiver = FastAPI()
    receiver.post("/in")(_receive)
    async with serving(receiver, bind(0)) as sink:
        destination = {
            "name": "erp",
            "url": f"{sink}/in",
            "secret": f"whsec_{base64.b64encode(b'of a destination in a test').decode()}",
        }
        extra = {
            "BROKER_PUSH__DESTINATIONS": json.dumps([destination]),
            "BROKER_POLICY_FILE": str(policy),
            "BROKER_LIMITS__MINT_PER_USER": "5/second",
            "BROKER_DATABASE__POOL_SIZE": "5",
        }
        arguments = [f"--broker-env={name}={value}" for name, value in extra.items()]
        with running_demo(folder / "demo", *arguments) as demo:
            async with _prometheus(folder, demo["metrics"]) as prometheus:
                yield Watched(demo, prometheus)


async def _receive() -> Response:
    """Accept most deliveries."""
    return Response(status_code=200 if random.random() < 0.8 else 503)  # noqa: S311  no secret


@contextlib.asynccontextmanager
async def _prometheus(folder: Path, metrics: str) -> AsyncIterator[httpx2.AsyncClient]:
    program = shutil.which("prometheus")
    assert program is not None
    target = metrics.removeprefix("http://").removesuffix("/metrics")
    # What fires only after some minutes fires at once here; promtool tests how long each waits.
    alerts = (ROOT / "deploy/prometheus/alerts.yml").read_text(encoding="utf-8")
    (folder / "alerts.yml").write_text(re.sub(r"\n +for: \w+", "", alerts), encoding="utf-8")
    config = folder / "prometheus.yml"
    config.write_text(
        f"global: {{scrape_interval: {_EVERY_SECONDS}s, evaluation_interval: 1s}}\n"
        "rule_files: [alerts.yml]\n"
        f"scrape_configs: [{{job_name: broker, static_configs: [{{targets: ['{target}']}}]}}]\n"
    )
    with reserved(0) as port:
        process = await asyncio.create_subprocess_exec(
            program,
            f"--config.file={config}",
            f"--storage.tsdb.path={folder / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=error",
        )
        try:
            async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10, verify=False) as client:
                async with asyncio.timeout(30):
                    while True:
                        with contextlib.suppress(httpx2.TransportError):
                            if (await client.get("/-/ready")).status_code == 200:
                                break
                        await asyncio.sleep(0.1)
                yield client
        finally:
            process.terminate()
            await process.wait()


@dataclass
class _Callers:
    """Everybody who uses the demo."""

    demo: Demo
    broker: httpx2.AsyncClient
    stackone: httpx2.AsyncClient
    chance: random.Random

    @property
    def _service(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.demo['service_key']}"}

    def _user(self) -> dict[str, str]:
        user = self.demo["users"][self.chance.choice(["alice", "bob", "carol"])]
        return {"authorization": f"Bearer {user['token']}"}

    async def _switch(self, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = await self.stackone.request(
            method, f"/_sandbox{path}", json=body, headers={"x-sandbox-key": self.demo["sandbox_key"]}
        )
        assert answer.is_success, answer.text
        return dict(answer.json()) if answer.content else {}

    async def browse(self) -> None:
        """Mint and list, now and then with what is refused."""
        provider = self.chance.choice(["bamboohr", "workday", "hibob", "salesforce"])
        await self.broker.post("/v1/connect-sessions", headers=self._user(), json={"provider": provider})
        await self.broker.get("/v1/linked-accounts", headers=self._user())
        if self.chance.random() < 0.2:
            await self.broker.get("/v1/linked-accounts", headers={"authorization": "Bearer eyJhbGciOiJub25lIn0.e30."})

    async def serve(self) -> None:
        """Ask as a backend does."""
        await self.broker.get("/v1/events?after=0", headers=self._service)
        owner = self.demo["users"]["alice"]["owner_id"]
        await self.broker.post(f"/v1/owners/{owner}/user-tokens", headers=self._service, json={"user": "alice"})

    async def link(self) -> None:
        """Link an account, break it and repair it: StackOne sends events of each."""
        order = {
            "provider": "bamboohr",
            "origin_owner_id": self.demo["users"]["alice"]["owner_id"],
            "origin_owner_name": "Acme",
        }
        account = (await self._switch("POST", "/accounts", order))["id"]
        for status in ("error", "active"):
            await asyncio.sleep(1.5)
            await self._switch("PATCH", f"/accounts/{account}", {"status": status})

    async def sweep(self) -> None:
        """Have everything compared."""
        await self.broker.post("/v1/sync", headers=self._service)

    async def trouble(self) -> None:
        """Have StackOne fail a few calls."""
        fault = {"method": "POST", "path": "/connect_sessions", "times": 12, "status": 503, "body": {}}
        await self._switch("POST", "/faults", fault)


async def load(demo: Demo, seconds: float, *, with_trouble: bool = True) -> None:
    """Use the demo for some seconds, in every way that it has."""
    async with (
        httpx2.AsyncClient(base_url=demo["broker"], timeout=20, verify=False) as broker,
        httpx2.AsyncClient(base_url=demo["stackone"], timeout=20, verify=False) as stackone,
    ):
        callers = _Callers(demo, broker, stackone, random.Random(4))  # noqa: S311  no secret
        ways = {
            callers.browse: 0.1,
            callers.serve: 0.3,
            callers.link: 1.0,
            callers.sweep: seconds / 3,
            **({callers.trouble: seconds / 2} if with_trouble else {}),
        }

        async def again(way: Any, pause: float) -> None:
            while True:
                await way()
                await asyncio.sleep(pause)

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds), asyncio.TaskGroup() as tasks:
                for way, pause in ways.items():
                    tasks.create_task(again(way, pause))


async def _draw_pictures(seconds: float) -> None:
    with tempfile.TemporaryDirectory() as name:
        async with watched_demo(Path(name)) as watched:
            await load(watched.demo, seconds)
            for panel in panels():
                if panel["title"] not in PICTURES:
                    continue
                lines = [
                    Line(_legend(target["legendFormat"], found["metric"]), found["values"])
                    for target in panel["targets"]
                    for found in await watched.range(as_asked(target["expr"]), seconds)
                ]
                unit = panel["fieldConfig"]["defaults"]["unit"]
                path = ROOT / f"docs/images/metrics-{PICTURES[panel['title']]}.svg"
                path.write_text(draw(panel["title"], unit, lines), encoding="utf-8")
                print_written(path)


def print_written(path: Path) -> None:
    """Say what was written."""
    sys.stdout.write(f"{path.relative_to(ROOT)}\n")


def _legend(template: str, labels: dict[str, str]) -> str:
    for name, value in labels.items():
        template = template.replace(f"{{{{{name}}}}}", value)
    return template


if __name__ == "__main__":
    asyncio.run(_draw_pictures(120))
