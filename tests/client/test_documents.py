"""The blocks of docs/backend.md and of the client's README, run in their order against the demo."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.checks.pages import ROOT
from tests.e2e.demo_process import Demo, running_demo

pytestmark = pytest.mark.timeout(240)

_BLOCK = re.compile(r"^```(\w+) ?([\w.]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_TSC = ROOT / "node_modules/.bin/tsc"


@dataclass(frozen=True)
class Block:
    """One block of code: its language, the name behind it, and the code."""

    language: str
    name: str
    code: str


def blocks_of(path: str) -> list[Block]:
    return [Block(*found) for found in _BLOCK.findall((ROOT / path).read_text(encoding="utf-8"))]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """Start the demo as the page says."""
    (start,) = (block.code for block in blocks_of("docs/backend.md") if block.name == "demo")
    told = re.search(r"ARGS='(.*)' \|", start)
    assert told is not None
    folder = tmp_path_factory.mktemp("demo")
    with running_demo(folder, *shlex.split(told[1], posix=False)[1:]) as started:
        yield started


def run(command: list[str], folder: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=120, cwd=folder, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_backends_first_hour(demo: Demo, tmp_path: Path) -> None:
    (tmp_path / "demo.json").write_text("making something\n" + json.dumps(demo.ready) + "\n")
    path = f"{ROOT / 'clients/python/src'}"
    environment = {**os.environ, "PYTHONPATH": path, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    blocks = blocks_of("docs/backend.md")
    languages = {block.language for block in blocks}
    assert languages == {"sh", "python", "ts"}
    shown = dict.fromkeys(languages, "")
    # One shell and one Python, as somebody has who goes through the page: what a block sets, the next one has.
    shell, python = "set -e\n", ""
    for block in blocks:
        if block.language == "sh" and not block.name:
            shell += block.code + "\n"
        elif block.language == "python":
            python += block.code + "\n"
    shown["sh"] = run(["bash", "-c", f"{shell}\nenv -0 >environment"], tmp_path, environment)
    pairs = (line.partition("=") for line in (tmp_path / "environment").read_text().split("\0") if line)
    environment |= {name: value for name, _, value in pairs}
    shown["python"] = run([sys.executable, "-c", python], tmp_path, environment)
    assert shown["sh"].count('"provider":"workday"') >= 1
    for told in (
        "send bob@globex.example http",
        "'org_acme', 'bamboohr', True",
        "'org_globex', 'workday', False",
        "test ",
    ):
        assert told in shown["python"], shown["python"]
    if shutil.which("node") is None or not _TSC.exists():
        pytest.skip("TypeScript is left out: there is no Node.js with TypeScript (make page installs it)")
    files = [block for block in blocks if block.language == "ts"]
    (tmp_path / "package.json").write_text('{"type": "module"}')
    for block in files:
        (tmp_path / block.name).write_text(block.code)
    types = ["--types", "node", "--typeRoots", str(ROOT / "node_modules/@types")]
    options = ["--strict", "--target", "es2023", "--module", "nodenext", "--rewriteRelativeImportExtensions", *types]
    run([str(_TSC), *options, *(block.name for block in files)], tmp_path, environment)
    for block in files:
        shown["ts"] += run(["node", block.name.replace(".ts", ".js")], tmp_path, environment)
    for told in ("send bob@globex.example http", "'bamboohr', true", "'workday', false", "test\n"):
        assert told in shown["ts"], shown["ts"]


def test_the_clients_tutorial(demo: Demo, tmp_path: Path) -> None:
    blocks = blocks_of("clients/python/README.md")
    code = "\n".join(block.code for block in blocks if block.language == "python")
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT / "clients/python/src"),
        "BROKER": str(demo["broker"]),
        "SERVICE_KEY": str(demo["service_key"]),
    }
    shown = run([sys.executable, "-W", "error", "-c", code], tmp_path, environment)
    assert "\nended\n" in shown
    assert shown.count("http") >= 1


def test_a_wheel_is_built_and_works_by_itself(tmp_path: Path) -> None:
    """Without the repository on its path, and without SQLAlchemy, which is an extra."""
    source = ROOT / "clients/python"
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    run([*build, f"--wheel-dir={tmp_path}", str(source)], tmp_path, dict(os.environ))
    (wheel,) = tmp_path.glob("connect_broker_client-0.2.*-py3-none-any.whl")
    code = (
        "import sys; sys.modules['sqlalchemy'] = None\n"
        "import connect_broker_client as c, importlib.resources as r\n"
        f"assert c.__file__.startswith({str(wheel)!r}), c.__file__\n"
        "assert r.files(c).joinpath('py.typed').is_file()\n"
        "print(repr(c.Broker('https://broker.example', 'sk_x')))"
    )
    environment = {**os.environ, "PYTHONPATH": str(wheel)}
    assert run([sys.executable, "-c", code], tmp_path, environment) == "Broker('https://broker.example')\n"
