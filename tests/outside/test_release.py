"""What builds and publishes: both Dockerfiles, the workflows, Renovate's settings, the bill of materials."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

import app
from tests.checks.pages import ROOT

pytestmark = pytest.mark.timeout(1000)

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
RENOVATE = ROOT / ".github/renovate.json"
_LOCKED = re.compile(r"^([\w.-]+)==(\S+)", re.MULTILINE)


def passes(*command: str | Path) -> str:
    """Run a program, which has to find nothing wrong."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def jobs() -> list[tuple[str, dict[str, Any]]]:
    """Return every job of every workflow."""
    read = [(path.name, yaml.safe_load(path.read_text())) for path in WORKFLOWS]
    return [(f"{name}: {key}", job) for name, workflow in read for key, job in workflow["jobs"].items()]


@pytest.mark.parametrize("name", ["Dockerfile", "demo/Dockerfile"])
def test_hadolint_finds_nothing(deploy_tools: Path, name: str) -> None:
    passes(deploy_tools / "hadolint", "--no-color", name)


def test_zizmor_finds_nothing(deploy_tools: Path) -> None:
    passes(deploy_tools / "zizmor", "--offline", "--strict-collection", "--persona=pedantic", "--quiet", ".github")


@pytest.mark.parametrize(("schema", "files"), [("vendor.github-workflows", WORKFLOWS), ("vendor.renovate", [RENOVATE])])
def test_they_are_what_their_schemas_say(deploy_tools: Path, schema: str, files: list[Path]) -> None:
    assert files
    passes(deploy_tools / "check-jsonschema", "--builtin-schema", schema, *files)


def test_actions_are_pinned_by_commit_and_permissions_given_one_by_one() -> None:
    for path in WORKFLOWS:
        assert yaml.safe_load(path.read_text())["permissions"] == {}
    for name, job in jobs():
        assert set(job["permissions"].values()) <= {"read", "write"}, name
        assert job["timeout-minutes"], name
        for step in job["steps"]:
            if "uses" in step:
                assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", step["uses"]), f"{name}: {step['uses']}"


def test_the_workflows_call_targets_that_there_are() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    commands = [line for _, job in jobs() for step in job["steps"] for line in step.get("run", "").splitlines()]
    called = {word for line in commands if "make " in line for word in line.partition("make ")[2].split()}
    assert {"check", "test", "test-outside", "image-check", "sbom"} <= called <= targets
    for program in re.findall(r"\.ci/\w+", "\n".join(commands)):
        assert (ROOT / program).is_file()


def test_what_is_published_is_built_on_the_base_of_the_dockerfile() -> None:
    [publish] = [job for name, job in jobs() if name.endswith(": publish")]
    named = set(re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE))
    assert named == {publish["env"]["BASE"]}
    [build] = [step["with"] for step in publish["steps"] if step.get("id") == "build"]
    assert "@${{ steps.pin.outputs.digest }}" in build["build-contexts"]
    assert (build["provenance"], build["sbom"]) == ("mode=max", True)


def test_the_version_of_the_workflows_is_read_where_it_stands() -> None:
    [publish] = [job for name, job in jobs() if name.endswith(": publish")]
    [pin] = [step["run"] for step in publish["steps"] if step.get("id") == "pin"]
    [reading] = re.findall(r'version="\$\((.*)\)"', pin)
    version = passes("bash", "-c", reading).strip()
    assert f'__version__ = "{version}"' in (ROOT / "app/__init__.py").read_text()


def test_renovate_holds_the_hub_at_the_version_whose_api_is_written_down() -> None:
    [hub] = [
        rule
        for rule in json.loads(RENOVATE.read_text())["packageRules"]
        if rule.get("matchPackageNames") == ["@stackone/hub"]
    ]
    assert (hub["rangeStrategy"], hub["automerge"], hub["dependencyDashboardApproval"]) == ("pin", False, True)
    manifests = [json.loads((ROOT / name / "package.json").read_text()) for name in ("demo", "packages/connect")]
    wanted = {
        manifest[kind]["@stackone/hub"]
        for manifest in manifests
        for kind in ("dependencies", "devDependencies")
        if "@stackone/hub" in manifest.get(kind, {})
    }
    known = (ROOT / "tests/contract/hub_api.toml").read_text().partition("@stackone/hub ")[2].partition(" ")[0]
    assert wanted == {known}


def test_the_bill_of_materials_lists_what_the_lock_file_does(deploy_tools: Path) -> None:
    assert (deploy_tools / "cyclonedx-py").exists()
    passes("make", "--no-print-directory", "sbom")
    bill = json.loads((ROOT / "build/sbom.json").read_text())
    assert bill["bomFormat"] == "CycloneDX"
    described = bill["metadata"]["component"]
    assert (described["name"], described["version"]) == ("connect-broker", app.__version__)
    listed = {(each["name"].lower(), each["version"]) for each in bill["components"]}
    assert listed == set(_LOCKED.findall((ROOT / "requirements.lock").read_text()))
    for component in bill["components"]:
        assert component["purl"].startswith("pkg:pypi/")
        assert any(reference.get("hashes") for reference in component["externalReferences"]), component["name"]
