"""Alerts and dashboards beside the programs that use them: promtool, and a Prometheus that scrapes a busy demo."""

import asyncio
import math
import subprocess
from pathlib import Path

import pytest

from tests.neighbours.conftest import program
from tests.outside.watched_demo import ROOT, as_asked, load, panels, watched_demo
from tests.support.waiting import eventually

pytestmark = pytest.mark.anyio
_LOAD_SECONDS = 30


@pytest.fixture(autouse=True)
def promtool() -> str:
    """Return Prometheus' own checker; Prometheus comes with it."""
    program("prometheus")
    return program("promtool")


@pytest.mark.parametrize("command", [["check", "rules", "alerts.yml"], ["test", "rules", "alerts.test.yml"]])
async def test_promtool_finds_the_alerts_right(promtool: str, command: list[str]) -> None:
    done = await asyncio.to_thread(
        subprocess.run,
        [promtool, *command],
        cwd=ROOT / "deploy/prometheus",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SUCCESS" in done.stdout


async def test_every_query_of_the_dashboard_finds_data_in_a_demo_under_load(tmp_path: Path, promtool: str) -> None:
    async with watched_demo(tmp_path) as watched:
        await load(watched.demo, _LOAD_SECONDS)
        empty = []
        for panel in panels():
            for target in panel["targets"]:
                found = await watched.ask(as_asked(target["expr"]))
                if not any(not math.isnan(float(series["value"][1])) for series in found):
                    empty.append(f"{panel['title']}: {target['expr']}")
        assert empty == []
        # Nor does an alert stand on what Prometheus cannot evaluate.
        rules = (await watched.prometheus.get("/api/v1/rules")).json()["data"]["groups"]
        judged = [rule for group in rules for rule in group["rules"]]
        assert len(judged) > 30
        shown = (await watched.prometheus.get(watched.demo["metrics"])).text
        lint = await asyncio.to_thread(
            subprocess.run, [promtool, "check", "metrics"], input=shown, capture_output=True, text=True, check=False
        )
        assert (lint.returncode, lint.stdout, lint.stderr) == (0, "", "")
        assert [rule["name"] for rule in judged if rule["health"] != "ok"] == []
        assert not [rule["name"] for rule in judged if rule["state"] == "firing" and rule["name"] == "BrokerDown"]


async def test_alerts_are_silent_over_a_busy_demo_and_fire_when_stackone_fails(tmp_path: Path) -> None:
    async with watched_demo(tmp_path) as watched:

        async def fires(*names: str) -> bool:
            return set(names) <= await watched.firing()

        await load(watched.demo, 12, with_trouble=False)
        # A sweep may meet accounts whose events are on their way: in earnest that is told after two hours of it.
        assert await watched.firing() <= {"BrokerEventsLost"}
        await watched.switch("/faults", {"method": "*", "path": "/", "times": 9999, "status": 503, "body": {}})
        await asyncio.gather(
            load(watched.demo, 8, with_trouble=False),
            eventually(lambda: fires("BrokerStackOneAway", "BrokerErrors"), within=30),
        )
