"""Which account is used: a pure decision, over every state of accounts and pins."""

from collections.abc import Mapping
from typing import Any

import pytest

from app.invitations.choose import Answer, choose
from app.linked_accounts.store import LinkedAccount, blank
from tests.support.tokens import StoppedClock

NOW = StoppedClock().now()


def account(
    account_id: str, username: str | None = None, *, status: str = "active", leaving: bool = False
) -> LinkedAccount:
    fields: dict[str, Any] = {name: getattr(blank(account_id), name) for name in LinkedAccount.__dataclass_fields__}
    requested = NOW if leaving else None
    return LinkedAccount(**{**fields, "username": username, "status": status, "disconnect_requested_at": requested})


WORKS, BROKEN, GOING = account("a"), account("a", status="error"), account("a", leaving=True)
IDLE = account("a", status="inactive")
OTHER = account("b", "bob")
ANNS = account("c", "ann")
ANNS_BROKEN = account("c", "ann", status="expired")

CASES: Mapping[str, tuple[list[LinkedAccount], str | None, str | None, Answer, str | list[str] | None]] = {
    "nothing": ([], None, None, Answer.CONNECT, None),
    "only one that goes": ([GOING], None, None, Answer.CONNECT, None),
    "one": ([WORKS], None, None, Answer.READY, "a"),
    "one that is broken": ([BROKEN], None, None, Answer.REPAIR, "a"),
    "one that is neither": ([IDLE], None, None, Answer.REPAIR, "a"),
    "one and one that goes": ([GOING, OTHER], None, None, Answer.READY, "b"),
    "two": ([WORKS, OTHER], None, None, Answer.CHOOSE, ["a", "b"]),
    "two of which one works": ([BROKEN, OTHER], None, None, Answer.CHOOSE, ["a", "b"]),
    "one's own among others'": ([WORKS, OTHER, ANNS], None, "ann", Answer.READY, "c"),
    "one's own is broken": ([WORKS, OTHER, ANNS_BROKEN], None, "ann", Answer.REPAIR, "c"),
    "none of one's own": ([WORKS], None, "ann", Answer.READY, "a"),
    "none of one's own among two": ([WORKS, OTHER], None, "ann", Answer.CHOOSE, ["a", "b"]),
    "two of one's own": ([OTHER, ANNS, account("d", "ann")], None, "ann", Answer.CHOOSE, ["c", "d"]),
    "pinned": ([WORKS, OTHER], "b", None, Answer.READY, "b"),
    "pinned before one's own": ([WORKS, ANNS], "a", "ann", Answer.READY, "a"),
    "pinned and broken": ([BROKEN, OTHER], "a", None, Answer.REPAIR, "a"),
    "the pinned one is gone": ([OTHER], "a", None, Answer.CHOOSE, ["b"]),
    "the pinned one goes": ([GOING, OTHER], "a", None, Answer.CHOOSE, ["b"]),
    "the pinned one is gone and nothing is left": ([], "a", None, Answer.CONNECT, None),
}


@pytest.mark.parametrize(("accounts", "pinned", "username", "answer", "which"), CASES.values(), ids=CASES.keys())
def test_the_right_one_of_the_answers(
    accounts: list[LinkedAccount],
    pinned: str | None,
    username: str | None,
    answer: Answer,
    which: str | list[str] | None,
) -> None:
    choice = choose(accounts, pinned=pinned, username=username)
    told = [each.account_id for each in choice.candidates] or (choice.account.account_id if choice.account else None)
    assert (choice.answer, told) == (answer, which)
