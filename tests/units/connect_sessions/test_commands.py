"""broker policy ... and broker owners ...: what they print, and how they end."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from app.cli.main import cli

POLICY = """[[rule]]
name = "suspended"
claims = { suspended = true }
deny = true

[[rule]]
name = "gold"
claims = { "org.plan" = "gold", seats = 7 }
providers = ["*"]
categories = ["hris", "ats"]
multiple = true
max_accounts_per_provider = 3
session_lifetime = 600
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "policy.toml"
    file.write_text(POLICY)
    return file


def explain(file: Path, *options: str) -> Result:
    return CliRunner().invoke(cli, ["policy", "explain", "--file", str(file), "--owner", "acme", *options])


def test_an_allowed_request_is_shown_with_its_values(file: Path) -> None:
    shown = explain(file, "--claim", "org.plan=gold", "--claim", "seats=7", "--provider", "workday", "--multiple")

    assert shown.exit_code == 0
    assert shown.output.splitlines() == [
        "line 1: suspended: the claims differ",
        "line 6: gold: matches",
        'allowed: rule "gold" allows it',
        "  categories: null",
        "  multiple: true",
        "  expires_in: 600",
        "  max_accounts_per_provider: 3",
    ]


def test_a_refused_request_ends_with_3_and_shows_no_values(file: Path) -> None:
    shown = explain(file, "--claim", "suspended=true")

    assert shown.exit_code == 3
    assert shown.output.splitlines() == [
        "line 1: suspended: matches",
        'refused: rule "suspended" denies it',
    ]


def test_without_claims_the_reason_says_so(file: Path) -> None:
    shown = explain(file)

    assert shown.exit_code == 3
    assert shown.output.splitlines() == [
        "line 1: suspended: it asks for claims, and there are none",
        "line 6: gold: it asks for claims, and there are none",
        "refused: no rule of the policy matches this owner, channel and claims",
    ]


@pytest.mark.parametrize(
    ("claims", "matches"),
    [
        (("org.plan=gold", "seats=7"), True),
        (("org.plan=gold", 'seats="7"'), True),
        (("org.plan=silver", "seats=7"), False),
        (('org.plan=["silver", "gold"]', "seats=7"), True),
        (('org={"plan": "gold"}', "seats=7"), True),
        (("org.plan=gold=", "seats=7"), False),
        (("org.plan=gold", "seats="), False),
    ],
    ids=str,
)
def test_claims_are_written_as_json_or_else_as_text(file: Path, claims: tuple[str, ...], *, matches: bool) -> None:
    shown = explain(file, "--json", *(option for claim in claims for option in ("--claim", claim)))

    assert json.loads(shown.output)["allowed"] == matches


def test_the_first_equals_sign_ends_the_path(file: Path) -> None:
    file.write_text('[[rule]]\nname = "r"\nclaims = { token = "a=b" }\nproviders = ["*"]\n')

    assert explain(file, "--claim", "token=a=b").exit_code == 0


def test_a_rule_whose_line_cannot_be_told_is_shown_without_one(file: Path) -> None:
    """An array written inline has no [[rule]] to point at."""
    file.write_text('rule = [{ name = "r", owners = ["*"], providers = ["*"] }]\n')

    assert explain(file).output.splitlines()[0] == "rule: r: matches"
    assert CliRunner().invoke(cli, ["policy", "check", str(file)]).output.splitlines()[1] == "  line ?: r"


@pytest.mark.parametrize("claim", ["plan", "=gold", ""])
def test_what_is_no_claim_is_a_usage_mistake(file: Path, claim: str) -> None:
    shown = explain(file, "--claim", claim)

    assert shown.exit_code == 2
    text = " ".join(shown.output.replace("│", " ").split())
    assert f"Invalid value for --claim: {claim!r} is no claim; write path=value" in text


def test_a_rule_is_listed_with_its_line_as_it_is_spelled(tmp_path: Path) -> None:
    """Nothing in a name is markup: [bold] is printed, and a long line is not broken."""
    file = tmp_path / "policy.toml"
    name = "[bold]gold[/bold] " + "x" * 200
    file.write_text(f'[[rule]]\nname = "{name}"\nowners = ["*"]\nproviders = ["*"]\n')
    checked = CliRunner().invoke(cli, ["policy", "check", str(file)])

    assert checked.output.splitlines() == [
        "the policy is fine: 1 rule(s), tried in this order",
        f"  line 1: {name}",
    ]
