"""What tests beside the programs of others have in common."""

import subprocess
from pathlib import Path

import pytest

from tests.checks.pages import ROOT
from tests.neighbours.conftest import open_directory, postgresql

__all__ = ["open_directory", "postgresql"]


@pytest.fixture(scope="session")
def deploy_tools() -> Path:
    """Install what reads and judges deploy/ (requirements-deploy.lock), and return the folder of its programs."""
    done = subprocess.run(
        ["make", "--no-print-directory", ".venv-deploy/.installed"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return ROOT / ".venv-deploy/bin"
