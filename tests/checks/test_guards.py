"""The guards see what they are there for: mistakes are seeded into a copy of the tree, and the tools must refuse each.

All mistakes stand in the copy at once and each tool runs once, as in `make check`, without Node.
"""

import re
import shutil
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.checks.pages import ROOT
from tests.checks.rules import plain_enums, replaced_words

_COPIED = (
    "app",
    "sandbox",
    "tests",
    "migrations",
    "docs",
    "packages/connect/openapi.json",
    "pyproject.toml",
    "README.md",
)
_SEEDED_IMPORTS = (
    ("app.connect_sessions.mint", "fastapi"),
    ("app.connect_sessions.ledger", "starlette.requests"),
    ("app.runtime", "uvicorn"),
    ("app.sync.inbox", "httpx2"),
    ("app.stackone.models", "app.linked_accounts.store"),
    ("app.clock", "sandbox.clock"),
    ("app.policy.rules", "sqlalchemy"),
)
_SEEDED_ROUTE = '''

@service.get("/seeded", summary="Seeded")
async def seeded(runtime: RuntimeDep, provider: str | None = None) -> str:
    """Open a transaction, and take whatever the query says."""
    async with runtime.database.reading() as connection:
        return f"{connection} {provider}"
'''
_SEEDED_QUERY = '''

class _Seeded(BaseModel):
    """A query that takes unknown names."""

    provider: str | None = None


@service.get("/seeded-model", summary="Seeded")
async def seeded_model(query: Annotated[_Seeded, Query()]) -> str:
    """Take whatever the query says."""
    return str(query.provider)
'''


@dataclass(frozen=True)
class Refusals:
    """What each tool said of the copy."""

    imports: str
    types: str
    checks: str


@pytest.fixture(scope="module")
def refusals(tmp_path_factory: pytest.TempPathFactory) -> Refusals:
    """Seed every mistake into one copy and run each tool on it once."""
    tree = tmp_path_factory.mktemp("seeded")
    _copy(tree)
    for module, imported in _SEEDED_IMPORTS:
        # In a function: the copy must still run, and a circle would keep it from that.
        path = tree / f"{module.replace('.', '/')}.py"
        assert path.exists(), f"seed the import elsewhere: {module} is gone"
        _add(path, f"\n\ndef _seeded() -> None:\n    import {imported}\n")
    _add(tree / "app/unknown.py", '"""A module that no layer knows."""\n')
    _add(tree / "app/seeded.py", _misspelt_states())
    _add(tree / "app/linked_accounts/routes.py", _SEEDED_ROUTE)
    _add(tree / "app/sync/routes.py", "\nfrom fastapi import Query\nfrom pydantic import BaseModel\n" + _SEEDED_QUERY)
    _add(tree / "packages/connect/openapi.json", " ")
    _add(tree / "app/push/sender.py", "\nWORD = 'what the neighbours said of the parcel'\n")
    with ThreadPoolExecutor() as pool:
        runs: list[Future[str]] = [
            pool.submit(_run, tree, Path(sys.executable).with_name("lint-imports"), "--no-cache"),
            pool.submit(_run, tree, sys.executable, "-m", "mypy", "--package", "app"),
            pool.submit(
                _run, tree, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly",
                "tests/checks/test_rules.py", "tests/checks/test_documents.py",
            ),
        ]  # fmt: skip
    return Refusals(*(run.result() for run in runs))


def _copy(tree: Path) -> None:
    leave = shutil.ignore_patterns("__pycache__", "node_modules")
    for name in (*_COPIED, ".mypy_cache"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tree / name, ignore=leave)
        elif (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tree / name)


def _add(path: Path, text: str) -> None:
    path.write_text((path.read_text(encoding="utf-8") if path.exists() else "") + text, encoding="utf-8")


def _misspelt_states() -> str:
    """Compare each plain Enum of the app with a text, by `==` and by `in`."""
    lines = ['"""Seeded."""']
    for number, (module, name) in enumerate(plain_enums(ROOT)):
        lines += [
            f"from {module} import {name} as E{number}",
            f'def compared{number}(state: E{number}) -> bool: return state == "burried"  # {module}.{name} ==',
            f'def member{number}(state: E{number}) -> bool: return state in ("pendign",)  # {module}.{name} in',
        ]
    return "\n".join(lines) + "\n"


def _run(tree: Path, *command: object) -> str:
    done = subprocess.run(
        [str(part) for part in command], cwd=tree, capture_output=True, text=True, check=False, timeout=150
    )
    assert done.returncode == 1, f"{command} did not refuse the seeded tree:\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


@pytest.mark.parametrize(("module", "imported"), _SEEDED_IMPORTS)
def test_an_import_that_no_contract_allows(refusals: Refusals, module: str, imported: str) -> None:
    own = imported.startswith(("app.", "sandbox."))
    assert f"{module} -> {imported if own else imported.split('.', maxsplit=1)[0]} " in refusals.imports


def test_a_module_that_no_layer_knows(refusals: Refusals) -> None:
    assert "- app.unknown\n" in refusals.imports


def test_a_misspelt_state(refusals: Refusals) -> None:
    seeded = _misspelt_states().splitlines()
    expected = {number for number, line in enumerate(seeded, 1) if line.startswith("def ")}
    refused = {int(found) for found in re.findall(r"app/seeded\.py:(\d+): error: Non-overlapping", refusals.types)}
    assert len(expected) >= 6
    assert [seeded[number - 1] for number in sorted(expected - refused)] == []


@pytest.mark.parametrize(
    "test",
    [
        "test_rules.py::test_no_route_opens_a_transaction",
        "test_rules.py::test_every_query_is_one_model_that_refuses_unknown_names",
        "test_rules.py::test_a_replaced_word_does_not_come_back",
        "test_documents.py::test_a_written_page_is_up_to_date[packages/connect/openapi.json]",
        "test_documents.py::test_a_written_page_is_up_to_date[docs/endpoints.md]",
    ],
)
def test_what_only_our_own_checks_see(refusals: Refusals, test: str) -> None:
    assert f"FAILED tests/checks/{test}" in refusals.checks


def test_an_old_word_is_named_with_its_place() -> None:
    text = "one door, two doors\nbackdoor of the neighbours"
    assert [word for _, word in replaced_words(text)] == ["door", "doors", "neighbours"]
