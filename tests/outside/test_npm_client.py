"""The vendor's own npm client, unmodified, against the StackOne emulator."""

import asyncio
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from sandbox.serving import bind, serving
from sandbox.stackone import Project, StackOneConfig, create_stackone
from sandbox.stackone.accounts import LinkOrder

pytestmark = pytest.mark.anyio

CLIENT = "@stackone/stackone-client-ts@4.28.0"
SCRIPT = Path(__file__).with_name("npm_client.mjs")


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """Install the client into a folder of its own, with the script beside it."""
    if shutil.which("npm") is None:
        pytest.skip("there is no Node.js with npm")
    (tmp_path / "package.json").write_text('{"private": true}')
    subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--no-package-lock", CLIENT], cwd=tmp_path, check=True)
    return Path(shutil.copy(SCRIPT, tmp_path))


async def test_the_npm_client_mints_lists_reads_updates_and_deletes(installed: Path) -> None:
    project = Project(StackOneConfig(api_key="demo-key", webhook_secret="demo-secret", sandbox_key="demo-sandbox"))
    account = project.accounts.link(
        LinkOrder(provider="bamboohr", origin_owner_id="org_1", origin_owner_name="One Ltd", changes={"label": "EMEA"})
    )
    async with serving(create_stackone(project), bind(0)) as url:
        node = await asyncio.create_subprocess_exec(
            "node", installed, url, account.id, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        output, errors = await node.communicate()
    assert node.returncode == 0, errors.decode()
    assert json.loads(output) == {
        "organization": [27270, 27270],
        "provider": "bamboohr",
        "listed": [account.id],
        "read": account.id,
        "updated": ["eve@one.example", "EMEA"],
        "deleted": account.id,
        "refused": ["NotFoundResponse", "BadRequestResponse"],
    }
