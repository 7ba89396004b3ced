"""broker owners erase: everything of an owner, at StackOne and here."""

import json
import sys
from typing import Annotated

import typer

from app.cli.opener import err, out, with_runtime
from app.owners.erasure import Erasure, erase_owner
from app.owners.routes import ErasureReceipt
from app.runtime import Runtime

_EXIT_PENDING = 3


def erase(
    owner_id: Annotated[str, typer.Argument(help="Owner id, as in the identity provider's claim.")],
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the receipt as JSON.")] = False,
) -> None:
    """Delete an owner's accounts at StackOne and everything personal here; print a receipt.

    Exit status: 0 complete, 3 under way (StackOne is away; a running broker carries it on).
    """
    if not yes:
        typer.confirm("This deletes all accounts of the owner at StackOne and cannot be undone. Go on?", abort=True)

    async def work(runtime: Runtime) -> Erasure:
        return await erase_owner(runtime, owner_id, actor="cli")

    erasure = with_runtime(work)
    if as_json:
        sys.stdout.write(json.dumps(ErasureReceipt.of(erasure).model_dump(mode="json")) + "\n")
    else:
        out.print(
            f"receipt {erasure.id}: {erasure.state}; {erasure.accounts} account(s), {erasure.sessions} session(s),"
            f" {erasure.events} event(s) cleared"
        )
    if erasure.state != "complete":
        err.print("StackOne still has something of this owner; a running broker goes on as soon as it can")
        sys.exit(_EXIT_PENDING)
