"""The npm package as it would be published: packed, and looked at by the tools that judge packages."""

import json
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "packages" / "connect"


def _run(*command: str | Path) -> str:
    done = subprocess.run([str(part) for part in command], cwd=PACKAGE, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build and pack the package."""
    if shutil.which("npm") is None:
        pytest.skip("there is no Node.js with npm")
    if not (ROOT / "node_modules").is_dir():
        pytest.skip("the npm packages are not installed: run npm ci")
    folder = tmp_path_factory.mktemp("packed")
    _run("npm", "pack", "--silent", "--pack-destination", folder)
    (found,) = folder.glob("*.tgz")
    return found


def test_the_package_holds_what_it_exports_and_no_tests(packed: Path) -> None:
    with tarfile.open(packed) as archive:
        names = {name.removeprefix("package/") for name in archive.getnames()}
    exported = {
        target.removeprefix("./")
        for entry in json.loads((PACKAGE / "package.json").read_text())["exports"].values()
        for target in (entry.values() if isinstance(entry, dict) else [entry])
        if "*" not in target
    }
    assert exported <= names
    assert {"README.md", "LICENSE", "THIRD-PARTY.md", "dist/locales/de.js", "dist/vendor/webcomponent.js"} <= names
    assert [name for name in names if "test" in name and not name.startswith("dist/testing.")] == []


def test_the_tools_that_judge_packages_find_nothing(packed: Path) -> None:
    _run(ROOT / "node_modules" / ".bin" / "publint", "--strict", packed)
    _run("node", "scripts/types.mjs")


def test_the_core_stays_small(packed: Path) -> None:
    del packed
    assert "index: " in _run("node", "scripts/sizes.mjs")


def test_its_api_is_the_one_that_was_reviewed(packed: Path) -> None:
    del packed
    _run("node", "scripts/api.mjs")


def test_an_import_needs_no_browser(packed: Path) -> None:
    del packed
    names = ("index", "react", "element", "testing", "locales/en", "locales/de")
    _run("node", "--input-type=module", "-e", "".join(f"await import('./dist/{name}.js');" for name in names))
