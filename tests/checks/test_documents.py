"""The documents say what the code does, and what they point at exists."""

import re
import subprocess
from pathlib import Path

import pytest

from app.linked_accounts.changes import Kind
from tests.checks.pages import PAGES, ROOT

_LINK = re.compile(r"\]\((?!https?://|mailto:|#)([^)#\s]+)")

_PATH = re.compile(r"`((?:app|bench|demo|deploy|docs|migrations|sandbox|tests)/[\w*./-]+)`")
_BUILT = ("demo/dist", "node_modules", "demo/node_modules", "packages/connect/dist", "packages/connect/node_modules")


def documents() -> list[Path]:
    """Return every Markdown file that git tracks or could track."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
    ).stdout.split()
    return [ROOT / name for name in listed if (ROOT / name).is_file()]


@pytest.mark.parametrize("name", PAGES)
def test_a_written_page_is_up_to_date(name: str) -> None:
    written = (ROOT / name).read_text(encoding="utf-8")
    assert written == PAGES[name](), f"{name} is not what the code says; run: make docs"


def test_every_link_leads_somewhere() -> None:
    broken = [
        f"{document.relative_to(ROOT)}: {target}"
        for document in documents()
        for target in _LINK.findall(document.read_text(encoding="utf-8"))
        if not (document.parent / target).exists()
    ]
    assert broken == []


def test_every_path_that_a_document_names_exists() -> None:
    gone = [
        f"{document.relative_to(ROOT)}: {path}"
        for document in documents()
        if document.name != "CHANGELOG.md"
        for path in _PATH.findall(document.read_text(encoding="utf-8"))
        if not path.startswith(_BUILT) and not list(ROOT.glob(path.rstrip("/")))
    ]
    assert gone == []


def test_every_kind_of_event_stands_in_the_feeds_table() -> None:
    behaviour = (ROOT / "docs/behaviour.md").read_text(encoding="utf-8")
    rows = "\n".join(line.split("|")[1] for line in behaviour.splitlines() if line.startswith("| `account."))
    assert [kind.value for kind in Kind if kind is not Kind.HINT and f"`{kind.value}`" not in rows] == []


def test_every_command_the_readme_names_exists() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", readme, re.MULTILINE))
    assert {"demo", "test"} <= named <= targets


def test_every_secret_of_the_composition_must_be_given() -> None:
    composition = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    variables = re.findall(r"\$\{([^}]+)\}", composition)
    optional = {variable for variable in variables if ":?" not in variable}
    # The database's own URL is made of the password, unless another one is given.
    assert {variable.partition(":")[0] for variable in optional} <= {"BROKER_DATABASE__URL"}
    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    for variable in variables:
        assert f"{re.split(':', variable)[0]}=" in example


def test_every_migration_and_decision_stands_in_its_order() -> None:
    for folder, pattern in ((ROOT / "docs/adr", r"(\d{4})-"), (ROOT / "migrations/versions", r"(\d{4})_")):
        numbers = sorted(int(found[1]) for path in folder.iterdir() if (found := re.match(pattern, path.name)))
        assert numbers == list(range(1, len(numbers) + 1)), folder


def test_the_image_holds_nothing_of_the_sandbox() -> None:
    allowed = {
        line.removeprefix("!").strip()
        for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line.startswith("!")
    }
    assert allowed == {"app", "migrations", "requirements.lock"}
    assert (ROOT / ".dockerignore").read_text(encoding="utf-8").startswith("*\n")
