"""broker policy ...: check a policy file, and ask what it decides and why."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from app.cli.printer import AsJson, print_json, print_line
from app.policy.file import read_policy
from app.policy.rules import Channel, consider, decide
from app.policy.schemas import ExplainRequest, Explanation
from app.settings import SessionSettings, load_settings

cli = typer.Typer(no_args_is_help=True, help="Policy: who may open what.")

_EXIT_REFUSED = 3

PolicyFile = Annotated[Path | None, typer.Option("--file", help="Policy file; otherwise BROKER_POLICY_FILE.")]


@cli.command("check")
def check_policy(file: Annotated[Path, typer.Argument(help="Policy file (TOML).")]) -> None:
    """Check a policy file and list all its mistakes; needs no settings."""
    rules = read_policy(file).rules or ()
    print_line(f"the policy is fine: {len(rules)} rule(s), tried in this order")
    for rule in rules:
        print_line(f"  line {rule.line or '?'}: {rule.name}")


@cli.command("explain")
def explain_policy(
    owner: Annotated[str, typer.Option(help="Owner id.")],
    provider: Annotated[str | None, typer.Option(help="Provider; left out, the user picks one.")] = None,
    channel: Annotated[
        str, typer.Option(help=f"One of {', '.join(channel.value for channel in Channel)}.")
    ] = "browser",
    claim: Annotated[
        list[str] | None, typer.Option(help="A claim as path=value, such as org.plan=gold; repeat for several.")
    ] = None,
    category: Annotated[list[str] | None, typer.Option(help="A category; repeat for several.")] = None,
    connector_profile: Annotated[str | None, typer.Option(help="Connector profile id.")] = None,
    expires_in: Annotated[int | None, typer.Option(help="Seconds the session is valid.")] = None,
    file: PolicyFile = None,
    *,
    multiple: Annotated[bool, typer.Option("--multiple", help="Ask for a further account of the provider.")] = False,
    has_account: Annotated[
        bool, typer.Option("--has-account", help="The owner has an account of the provider already.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Say which rule decides about a request, and why. Exit status: 0 allowed, 3 refused."""
    settings = load_settings() if file is None else None
    policy = read_policy(file or (settings.policy_file if settings else None))
    try:
        request = ExplainRequest.model_validate(
            {
                "owner_id": owner,
                "channel": channel,
                "provider": provider,
                "categories": category or None,
                "connector_profile_id": connector_profile,
                "multiple": multiple,
                "has_account": has_account,
                "expires_in": expires_in,
                "claims": _claims(claim or ()),
            }
        )
    except ValidationError as error:
        found = error.errors(include_input=False, include_url=False)
        raise typer.BadParameter("; ".join(f"{item['loc'][0]}: {item['msg']}" for item in found)) from error
    question = request.request(settings.sessions if settings else SessionSettings())
    explanation = Explanation.of(decide(policy, question), consider(policy, question))
    if as_json:
        print_json(explanation)
    else:
        _show(explanation)
    if not explanation.allowed:
        raise typer.Exit(_EXIT_REFUSED)


def _claims(written: Sequence[str]) -> dict[str, Any]:
    """Read path=value; the whole path is one name, which policy tries before nesting. Values are JSON, or else text."""
    claims: dict[str, Any] = {}
    for entry in written:
        path, equals, value = entry.partition("=")
        if not path or not equals:
            message = f"{entry!r} is no claim; write path=value"
            raise typer.BadParameter(message, param_hint="--claim")
        try:
            claims[path] = json.loads(value)
        except ValueError:
            claims[path] = value
    return claims


def _show(explanation: Explanation) -> None:
    for entry in explanation.considered:
        where = f"line {entry.line}" if entry.line else "rule"
        print_line(f"{where}: {entry.rule}: {'matches' if entry.matched else entry.why}")
    print_line(f"{'allowed' if explanation.allowed else 'refused'}: {explanation.reason}")
    if explanation.grant is not None:
        for name, value in explanation.grant.model_dump().items():
            print_line(f"  {name}: {json.dumps(value)}")
