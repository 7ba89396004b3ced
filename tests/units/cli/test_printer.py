"""What commands print: other people's text as it is, and nothing that a terminal would obey."""

import json
from datetime import UTC, datetime
from enum import Enum

import pytest
import typer

from app.cli.printer import fail, print_json, print_line, print_table


class Color(Enum):
    """A state, as any."""

    RED = "red"


def test_markup_in_a_value_is_text(capsys: pytest.CaptureFixture[str]) -> None:
    print_line("[bold]Acme[/bold] :smile: 7 'x'")
    assert capsys.readouterr().out == "[bold]Acme[/bold] :smile: 7 'x'\n"


def test_a_terminals_control_characters_are_replaced(capsys: pytest.CaptureFixture[str]) -> None:
    print_line("a\x1b[2Jb\nc\u202ed")
    assert capsys.readouterr().out == "a\ufffd[2Jb\ufffdc\ufffdd\n"


def test_a_table_is_as_wide_as_its_values(capsys: pytest.CaptureFixture[str]) -> None:
    long = "x" * 300
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    print_table(("id", "owner", "dead", "at"), [("a", f"[red]{long}", 3, at), ("bcd", None, 0, None)])
    head, first, second = capsys.readouterr().out.splitlines()
    assert head.split() == ["id", "owner", "dead", "at"]
    assert first.split() == ["a", f"[red]{long}", "3", "2026-01-02T03:04+00:00"]
    assert second.split() == ["bcd", "-", "0", "-"]
    assert head.index("dead") == first.index("3") == second.index("0")


def test_a_table_without_rows_has_its_head(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("id", "owner"), [])
    assert capsys.readouterr().out == "id  owner\n"


def test_json_is_one_line_spelled_as_the_api_spells_it(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"at": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "color": Color.RED, "text": "[b]\n"})
    out = capsys.readouterr().out
    assert json.loads(out) == {"at": "2026-01-02T03:04:05Z", "color": "red", "text": "[b]\n"}
    assert out.count("\n") == 1


def test_a_failure_is_told_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as ended:
        fail("no [such] account", status=4)
    said = capsys.readouterr()
    assert (ended.value.exit_code, said.out, said.err) == (4, "", "no [such] account\n")
