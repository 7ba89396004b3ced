"""The MCP server of docs/agents.md, with the vendor's toolset, against the demo: asked for before and after connecting.

What is installed stands in `requirements-agents.lock`.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.checks.pages import ROOT
from tests.client.test_documents import blocks_of
from tests.e2e.demo_process import Demo, running_demo

pytestmark = pytest.mark.timeout(1200)

_URL_ELICITATION_REQUIRED = -32042  # of the protocol


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an environment with what the page asks for."""
    folder = tmp_path_factory.mktemp("agents") / "python"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True, timeout=600)
    lock = ROOT / "requirements-agents.lock"
    install = ["-m", "pip", "install", "-qq", "--disable-pip-version-check", "--require-hashes", "-r", str(lock)]
    done = subprocess.run([folder / "bin/python", *install], check=False, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    return folder / "bin/python"


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    """Start the demo, in which nobody has connected anything yet."""
    with running_demo(tmp_path / "demo") as started:
        yield started


def test_an_agent_is_told_whom_to_ask_and_then_works(demo: Demo, python: Path, tmp_path: Path) -> None:
    [server] = [block.code for block in blocks_of("docs/agents.md") if block.name == "server.py"]
    (tmp_path / "server.py").write_text(server)
    shutil.copy(Path(__file__).parent / "agents/ask.py", tmp_path)
    environment = {
        **os.environ,
        "BROKER": demo["broker"],
        "SERVICE_KEY": demo["service_key"],
        "STACKONE_API_KEY": demo["stackone_api_key"],
        "STACKONE_URL": demo["stackone"],
    }

    def ask() -> dict[str, Any]:
        done = subprocess.run(
            [python, "ask.py"], cwd=tmp_path, env=environment, check=False, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    first = ask()
    assert first["code"] == _URL_ELICITATION_REQUIRED, first
    [elicitation] = first["data"]["elicitations"]
    assert elicitation["mode"] == "url"
    assert "#inv_" in elicitation["url"]

    account = link(demo)
    assert employees(ask()) == ["Ada Example", "Ben Example"]

    # Broken at the provider: the next call says who can mend it, and nothing is tried with it.
    change(demo, account, {"status": "error"})
    broken = ask()
    assert broken["code"] == _URL_ELICITATION_REQUIRED, broken
    assert broken["data"]["elicitations"][0]["url"] != elicitation["url"]
    change(demo, account, {"status": "active"})
    assert employees(ask()) == ["Ada Example", "Ben Example"]


def employees(told: dict[str, Any]) -> list[str]:
    assert told["is_error"] is False, told
    return [json.loads(text)["name"] for text in told["text"]]


def link(demo: Demo) -> str:
    body = {
        "provider": "bamboohr",
        "origin_owner_id": "org_acme",
        "origin_owner_name": "Acme Inc",
        "origin_username": "alice@acme.example",
    }
    made = httpx2.post(f"{demo['stackone']}/_sandbox/accounts", json=body, headers=_key(demo))
    account_id = str(made.json()["id"])
    confirm(demo, account_id)
    return account_id


def change(demo: Demo, account_id: str, body: dict[str, str]) -> None:
    httpx2.patch(f"{demo['stackone']}/_sandbox/accounts/{account_id}", json=body, headers=_key(demo)).raise_for_status()
    confirm(demo, account_id)


def confirm(demo: Demo, account_id: str) -> None:
    user = {"authorization": f"Bearer {demo['users']['alice']['token']}"}
    httpx2.post(f"{demo['broker']}/v1/linked-accounts/{account_id}/confirm", headers=user).raise_for_status()


def _key(demo: Demo) -> dict[str, str]:
    return {"x-sandbox-key": demo["sandbox_key"]}
