"""broker doctor: whether everything works that the broker needs."""

from typing import Annotated

import typer

from app.cli.examine import Finding, State, examine
from app.cli.opener import with_runtime
from app.cli.printer import AsJson, print_json, print_line
from app.runtime import Runtime

_COLORS = {State.OK: "green", State.WARNING: "yellow", State.BROKEN: "red"}
_EXIT_BROKEN = 1


def doctor(
    webhook_url: Annotated[
        str | None,
        typer.Option(help="Where StackOne sends events; by default this machine's own broker."),
    ] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Examine settings, database, StackOne, webhook, issuers and how fresh the store is; each finding says its remedy.

    Exit status: 0 nothing is broken (there may be warnings), 1 something is broken, 78 the settings are invalid.
    """

    async def work(runtime: Runtime) -> list[Finding]:
        findings = []
        async for finding in examine(runtime, webhook_url or _own_webhook(runtime)):
            findings.append(finding)
            if not as_json:
                _show(finding)
        return findings

    findings = with_runtime(work)
    is_broken = any(finding.state is State.BROKEN for finding in findings)
    if as_json:
        print_json({"ok": not is_broken, "findings": findings})
    if is_broken:
        raise typer.Exit(_EXIT_BROKEN)


def _own_webhook(runtime: Runtime) -> str:
    http = runtime.settings.http
    host = "127.0.0.1" if http.host in {"0.0.0.0", "::"} else http.host  # noqa: S104  compared, not bound to
    return f"http://{host}:{http.port}/v1/webhooks/stackone"


def _show(finding: Finding) -> None:
    typer.secho(f"{finding.state.value:8}", fg=_COLORS[finding.state], nl=False)
    print_line(f"{finding.subject}: {finding.detail}")
    if finding.remedy:
        print_line(f"        {finding.remedy}")
