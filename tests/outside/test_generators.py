"""Linters of API documents and generators of clients, unmodified, on the broker's document; the clients then work.

They run against `broker-demo` as it is started by hand. What is installed stands in lock files: the generators' own
`package-lock.json`, and `requirements-generators.lock`.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx2
import pytest

from tests.checks.pages import ROOT, openapi_document
from tests.e2e.demo_process import Demo, running_demo

pytestmark = pytest.mark.timeout(1200)

HERE = Path(__file__).with_name("generators")
_TSC = (
    *("npx", "tsc", "--noEmit", "--strict", "--target", "es2022", "--lib", "es2022,dom,dom.iterable"),
    *("--module", "esnext", "--moduleResolution", "bundler", "--skipLibCheck", "--types", "node"),
)


def run(command: Sequence[str | Path], folder: Path) -> str:
    """Run a program to its end and return what it said."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder with the document, the generators, and the programs that use what they make."""
    if shutil.which("npm") is None:
        pytest.skip("there is no Node.js with npm")
    made = tmp_path_factory.mktemp("generators")
    shutil.copytree(HERE, made, dirs_exist_ok=True)
    (made / "openapi.json").write_text(json.dumps(openapi_document()))
    run(["npm", "ci", "--no-audit", "--no-fund"], made)
    return made


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """Start the demo, and link an account of Acme's."""
    with running_demo(tmp_path_factory.mktemp("demo")) as started:
        body = {"provider": "bamboohr", "origin_owner_id": "org_acme", "origin_owner_name": "Acme Inc"}
        key = {"x-sandbox-key": started["sandbox_key"]}
        made = httpx2.post(f"{started['stackone']}/_sandbox/accounts", json=body, headers=key)
        confirm = f"{started['broker']}/v1/linked-accounts/{made.json()['id']}/confirm"
        user = {"authorization": f"Bearer {started['users']['alice']['token']}"}
        assert httpx2.post(confirm, headers=user).status_code == 200
        yield started


def used(demo: Demo, program: Sequence[str | Path], folder: Path) -> None:
    """Run a program against the demo, and compare what it saw with what is there."""
    seen = json.loads(run([*program, demo["broker"], demo["service_key"]], folder))
    service = {"authorization": f"Bearer {demo['service_key']}"}
    [account] = httpx2.get(f"{demo['broker']}/v1/accounts", headers=service).json()["data"]
    assert seen == {
        "mode": "edit",
        "accounts": [account["account_id"]],
        "kinds": ["account.linked"],
        "more": 0,
        "refused": "not_found",
    }


def test_linters_find_nothing(folder: Path) -> None:
    (folder / ".spectral.yaml").write_text('extends: ["spectral:oas"]\n')
    run(["npx", "spectral", "lint", "--fail-severity", "hint", "openapi.json"], folder)
    said = run(["npx", "redocly", "lint", "--extends", "recommended", "openapi.json"], folder)
    assert "warning" not in said.lower().replace("deprecation warning", "")


def test_openapi_typescript_and_openapi_fetch(demo: Demo, folder: Path) -> None:
    run(["npx", "openapi-typescript", "openapi.json", "-o", "types.ts"], folder)
    run([*_TSC, "use.ts"], folder)
    run(["npx", "esbuild", "use.ts", "--bundle", "--platform=node", "--format=esm", "--outfile=use.mjs"], folder)
    used(demo, ["node", "use.mjs"], folder)


def test_hey_api(demo: Demo, folder: Path) -> None:
    run(["npx", "openapi-ts", "-i", "openapi.json", "-o", "hey", "-c", "@hey-api/client-fetch"], folder)
    run([*_TSC, "use_hey.ts"], folder)
    run(["npx", "esbuild", "use_hey.ts", "--bundle", "--platform=node", "--format=esm", "--outfile=hey.mjs"], folder)
    used(demo, ["node", "hey.mjs"], folder)


def test_openapi_python_client(demo: Demo, folder: Path) -> None:
    run([sys.executable, "-m", "venv", "python"], folder)
    python = folder / "python" / "bin" / "python"
    lock = ROOT / "requirements-generators.lock"
    run([python, "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--require-hashes", "-r", lock], folder)
    # The generator formats what it makes with a linter that it has beside it.
    said = run(
        [
            *("env", f"PATH={python.parent}:/usr/bin:/bin", python.parent / "openapi-python-client", "generate"),
            *("--path", "openapi.json", "--output-path", "broker_client", "--meta", "none", "--overwrite"),
        ],
        folder,
    )
    assert "Unable to process" not in said
    assert "WARNING" not in said
    run([python, "-m", "compileall", "-q", "broker_client"], folder)
    used(demo, [python, "use_client.py"], folder)
