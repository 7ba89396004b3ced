"""Every series is explained, and looked at: in the documents, and in a panel or an alert."""

import json
import re
from typing import Any

import pytest
import yaml

from app.metrics import Metrics
from tests.checks.pages import ROOT

OPERATIONS = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
ALERTS = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text(encoding="utf-8"))
TESTS = yaml.safe_load((ROOT / "deploy/prometheus/alerts.test.yml").read_text(encoding="utf-8"))
DASHBOARDS = sorted((ROOT / "deploy/grafana").glob("*.json"))
RULES: list[dict[str, Any]] = [rule for group in ALERTS["groups"] for rule in group["rules"]]
SUFFIXES = ("_total", "_bucket", "_count", "_sum", "_info")


def queries() -> list[str]:
    """Return every query of every panel."""
    boards = [json.loads(path.read_text(encoding="utf-8")) for path in DASHBOARDS]
    return [target["expr"] for board in boards for panel in board["panels"] for target in panel.get("targets", [])]


def series() -> list[str]:
    """Return the name of each series of our own, as the documents write it."""
    return sorted(
        f"{family.name}_total" if family.type == "counter" else family.name
        for family in Metrics().registry.collect()
        if family.name.startswith("broker_")
    )


def named(text: str) -> set[str]:
    """Return the series that a text names, a histogram's by its own name."""
    found = set(re.findall(r"\bbroker_[a-z_]+", text))
    return found | {name.removesuffix(suffix) for name in found for suffix in SUFFIXES if suffix != "_total"}


@pytest.mark.parametrize("name", series())
def test_a_series_is_explained_and_looked_at(name: str) -> None:
    assert name in named(OPERATIONS.split("## What to watch")[1].split("Logs are JSON")[0])
    assert name in named(" ".join([*queries(), *(rule["expr"] for rule in RULES)]))


def test_nothing_is_asked_for_that_there_is_not() -> None:
    theirs = {sample.name for family in Metrics().registry.collect() for sample in family.samples}
    known = theirs | {name + suffix for name in series() for suffix in ("", "_bucket", "_count", "_sum")}
    text = " ".join([*queries(), *(rule["expr"] for rule in RULES)])
    assert set(re.findall(r"\b(?:broker|process|python)_[a-z_]+", text)) - known == set()


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_an_alert_has_a_section_and_a_test(rule: dict[str, Any]) -> None:
    name = rule["alert"]
    section = re.search(rf"^### {name}\n\n(.+?)(?=\n##)", OPERATIONS, re.DOTALL | re.MULTILINE)
    assert section is not None
    assert "**Do:**" in section[1]
    assert rule["annotations"]["runbook"] == f"docs/operations.md#{name.lower()}"
    assert f"({rule['labels']['severity']})" in section[1]
    tried = [case for test in TESTS["tests"] for case in test["alert_rule_test"] if case["alertname"] == name]
    assert any(case["exp_alerts"] for case in tried), "it is never seen to fire"
    assert any(not case["exp_alerts"] for case in tried), "it is never seen to be silent"


def test_no_section_is_about_an_alert_that_there_is_not() -> None:
    written = re.findall(r"^### (Broker\w+)$", OPERATIONS, re.MULTILINE)
    assert written == [rule["alert"] for rule in RULES]
