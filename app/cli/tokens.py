"""broker tokens ...: why a token is refused, and ending those of the broker's own."""

import sys
from dataclasses import asdict
from typing import Annotated

import typer

from app.cli.opener import with_runtime
from app.cli.printer import AsJson, fail, print_json, print_line
from app.identity.explain import Explanation
from app.owners.user_tokens import Revocation, revoke_user_tokens
from app.runtime import Runtime

cli = typer.Typer(
    no_args_is_help=True, help="Tokens of users and machines: why one is refused; ending the broker's own."
)


_EXIT_REFUSED = 3
_LONGEST_INPUT = 256 * 1024


@cli.command("explain")
def explain(*, as_json: AsJson = False) -> None:
    """Say what becomes of a token that is given on standard input: which issuer, which check fails, which owner.

    The token is never shown. Exit status 3 if it is refused.
    """
    text = sys.stdin.read(_LONGEST_INPUT).strip().removeprefix("Bearer ").strip()
    if not text:
        fail("give the token on standard input: broker tokens explain < token.txt")

    async def asked(runtime: Runtime) -> Explanation:
        return await runtime.authenticator.explain(text)

    found = with_runtime(asked)
    if as_json:
        print_json(asdict(found))
    else:
        _show(found)
    if not found.accepted:
        raise typer.Exit(_EXIT_REFUSED)


def _show(found: Explanation) -> None:
    print_line(f"{'accepted' if found.accepted else 'refused'}: {found.reason}")
    for name, value in (
        ("iss", found.issuer),
        ("fits the issuer", found.matched),
        ("on routes of", found.routes),
        ("only in the header", f"{found.header}, from a trusted proxy" if found.header else None),
        ("owner id", found.owner_id),
        ("owner name", found.owner_name),
        ("user", found.username),
        ("scopes", " ".join(found.scopes) or None),
        ("valid until", found.expires_at),
        ("its claims", " ".join(found.claims) or None),
    ):
        if value is not None:
            print_line(f"  {name}: {value}")


@cli.command("revoke")
def revoke(
    owner: Annotated[str, typer.Option(help="Owner whose users' tokens end.")],
    user: Annotated[str | None, typer.Option(help="Only this user's.")] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """End the user tokens of an owner, or of one of its users, that were made before now."""

    async def ended(runtime: Runtime) -> Revocation:
        return await revoke_user_tokens(runtime, owner, user, actor="cli")

    revocation = with_runtime(ended)
    if as_json:
        print_json({"owner_id": owner, "user": user, "not_before": revocation.not_before})
        return
    print_line(f"user tokens made before {revocation.not_before.isoformat()} end in every replica within 5 seconds")
