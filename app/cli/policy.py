"""broker policy ... and broker owners ...: asking policy questions, and pinning names, from the command line."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, get_args

import typer
from pydantic import ValidationError
from rich.console import Console

from app.policy.file import read_policy
from app.policy.rules import Channel, consider, decide
from app.policy.schemas import ExplainRequest, Explanation
from app.settings import SessionSettings, load_settings

policy_cli = typer.Typer(no_args_is_help=True, help="Policy: who may open what.")

_out = Console(soft_wrap=True)
_EXIT_REFUSED = 3

PolicyFile = Annotated[Path | None, typer.Option("--file", help="Policy file; otherwise BROKER_POLICY_FILE.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


@policy_cli.command("check")
def check_policy(file: Annotated[Path, typer.Argument(help="Policy file (TOML).")]) -> None:
    """Check a policy file and list all its mistakes; needs no settings."""
    rules = read_policy(file).rules or ()
    _say(f"the policy is fine: {len(rules)} rule(s), tried in this order")
    for rule in rules:
        _say(f"  line {rule.line or '?'}: {rule.name}")


@policy_cli.command("explain")
def explain_policy(
    owner: Annotated[str, typer.Option(help="Owner id.")],
    provider: Annotated[str | None, typer.Option(help="Provider; left out, the user picks one.")] = None,
    channel: Annotated[str, typer.Option(help=f"One of {', '.join(get_args(Channel))}.")] = "browser",
    claim: Annotated[
        list[str] | None, typer.Option(help="A claim as path=value, such as org.plan=gold; repeat for several.")
    ] = None,
    category: Annotated[list[str] | None, typer.Option(help="A category; repeat for several.")] = None,
    connector_profile: Annotated[str | None, typer.Option(help="Connector profile id.")] = None,
    expires_in: Annotated[int | None, typer.Option(help="Seconds the session shall live.")] = None,
    file: PolicyFile = None,
    *,
    multiple: Annotated[bool, typer.Option("--multiple", help="A further account of the provider.")] = False,
    has_account: Annotated[bool, typer.Option("--has-account", help="There is an account of the provider.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say which rule decides about a wish, and why. Exits with 3 if it is refused."""
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
    asked = request.asked(settings.sessions if settings else SessionSettings())
    explanation = Explanation.of(decide(policy, asked), consider(policy, asked))
    if as_json:
        sys.stdout.write(explanation.model_dump_json() + "\n")
    else:
        _show(explanation)
    if not explanation.allowed:
        raise typer.Exit(_EXIT_REFUSED)


def _claims(written: Sequence[str]) -> dict[str, Any]:
    """Read path=value; a path counts as one name, which is how it is tried first. JSON values are taken as such."""
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
        _say(f"{where}: {entry.rule}: {'matches' if entry.matched else entry.why}")
    _say(f"{'allowed' if explanation.allowed else 'refused'}: {explanation.reason}")
    if explanation.grant is not None:
        for name, value in explanation.grant.model_dump().items():
            _say(f"  {name}: {json.dumps(value)}")


def _say(line: str) -> None:
    _out.print(line, markup=False, highlight=False)
