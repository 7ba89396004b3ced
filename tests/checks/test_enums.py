"""Outcomes and states are plain Enums, so that the type checker refuses a wrong one."""

from pathlib import Path

from mypy import api

ROOT = Path(__file__).parents[2]
MISTAKES = {
    "an outcome that does not exist": """
        from app.linked_accounts.decide import Decision
        def buried(decision: Decision) -> bool:
            return decision.outcome == "burried"
        """,
    "a state of a sweep that does not exist": """
        from app.sync.runs import Sweep
        def waits(sweep: Sweep) -> bool:
            return sweep.state != "pendign"
        """,
    "a state of a sweep as text": """
        from app.sync.runs import Sweep
        def is_over(sweep: Sweep) -> bool:
            return sweep.state in {"done", "stopped"}
        """,
    "a kind of change as text": """
        from app.linked_accounts.changes import Change
        def is_new(change: Change) -> bool:
            return change.kind == "account.linked"
        """,
    "how far a disconnect came as text": """
        from app.linked_accounts.disconnect import Disconnected
        def is_gone(disconnected: Disconnected) -> bool:
            return disconnected == "gone"
        """,
    "what became of a delivery as text": """
        from app.sync.inbox import Outcome
        def is_new(outcome: Outcome) -> bool:
            return outcome == "accepted"
        """,
    "what a page says about the end of its listing as text": """
        from app.stackone.listing import Page, judge_page
        def goes_on(page: Page) -> bool:
            return judge_page(page) == "more"
        """,
}


def _lines(source: str) -> str:
    return "\n".join(line.removeprefix(" " * 8) for line in source.splitlines())


def test_the_type_checker_refuses_a_wrong_outcome(tmp_path: Path) -> None:
    files = {}
    for number, (name, source) in enumerate(MISTAKES.items()):
        path = tmp_path / f"mistake_{number}.py"
        path.write_text(_lines(source), encoding="utf-8")
        files[path.name] = name
    found, _errors, _status = api.run(
        ["--config-file", str(ROOT / "pyproject.toml"), *(str(tmp_path / name) for name in files)]
    )
    refused = {Path(line.split(":")[0]).name for line in found.splitlines() if "[comparison-overlap]" in line}
    assert refused == set(files), found
