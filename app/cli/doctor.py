"""broker doctor: whether everything is there that the broker needs."""

import json
import sys
from dataclasses import asdict
from typing import Annotated

import typer

from app.cli.examine import Finding, examine
from app.cli.opener import out, with_runtime
from app.runtime import Runtime

_SIGNS = {"ok": "[green]ok[/green]     ", "warning": "[yellow]warning[/yellow]", "broken": "[red]broken[/red] "}
_EXIT_BROKEN = 1


def doctor(
    webhook_url: Annotated[
        str | None,
        typer.Option(help="Where StackOne sends events; by default this machine's own broker."),
    ] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")] = False,
) -> None:
    """Examine settings, database, StackOne, webhook, issuers and how fresh the store is; each finding has its remedy.

    Exit status: 0 nothing is broken (warnings may be), 1 something is, 78 the settings are.
    """

    async def work(runtime: Runtime) -> list[Finding]:
        http = runtime.settings.http
        host = "127.0.0.1" if http.host in {"0.0.0.0", "::"} else http.host  # noqa: S104  compared, not bound to
        url = webhook_url or f"http://{host}:{http.port}/v1/webhooks/stackone"
        findings = []
        async for finding in examine(runtime, url):
            findings.append(finding)
            if not as_json:
                _say(finding)
        return findings

    findings = with_runtime(work)
    is_broken = any(finding.state == "broken" for finding in findings)
    if as_json:
        body = {"ok": not is_broken, "findings": [asdict(finding) for finding in findings]}
        sys.stdout.write(json.dumps(body) + "\n")
    if is_broken:
        sys.exit(_EXIT_BROKEN)


def _say(finding: Finding) -> None:
    out.print(_SIGNS[finding.state], end=" ")
    out.print(f"{finding.subject}: {finding.detail}", markup=False, highlight=False)
    if finding.remedy:
        out.print(f"          {finding.remedy}", markup=False, highlight=False)
