"""The JSON of sessions and of questions to policy: what may come in, and what is shown."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from app.connect_sessions.ledger import Session
from app.connect_sessions.schemas import OwnerSessionRequest, SessionPoll, SessionStatus
from app.connect_sessions.tables import Mode, Status
from app.owners.erasure import Erasure
from app.owners.schemas import ErasureReceipt
from app.owners.tables import ErasureState
from app.policy.rules import Channel, Decision, Grant, Policy, Request, Rule, consider, decide
from app.policy.schemas import ExplainRequest, Explanation
from app.settings import SessionSettings
from app.stackone.models import Category
from tests.support.case_names import spelled

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def complaint(value: dict[str, Any]) -> str | None:
    """Return what is wrong with metadata, or None if nothing is."""
    try:
        OwnerSessionRequest.model_validate({"metadata": value})
    except ValidationError as error:
        [problem] = error.errors(include_input=False)
        return problem["msg"].removeprefix("Value error, ")
    return None


def deep(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"plan": "gold", "seats": 12, "nested": {"list": [1, None, True, 0.5]}},
        {"text": "two\nlines, a \\ and a tab\t"},
        {"name": "Größe \N{SNOWMAN}"},
        {"x": "y" * (4096 - len('{"x": ""}'))},
        {"x": "ü" * ((4096 - len('{"x": ""}')) // 2)},
    ],
    ids=lambda value: spelled(value)[:20],
)
def test_plain_json_of_four_kilobytes_is_metadata(value: dict[str, Any]) -> None:
    assert OwnerSessionRequest.model_validate({"metadata": value}).metadata == value


LIMIT = "must be at most 4096 bytes of JSON without NUL"
UNFIT = "must not contain control characters, lone surrogates or bidirectional overrides"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"x": "y" * (4097 - len('{"x": ""}'))}, LIMIT),
        ({"x": "ü" * 2044}, LIMIT),
        ({"x": "a\x00b"}, LIMIT),
        ({"a\x00b": 1}, LIMIT),
        ({"x": "\ud800"}, UNFIT),
        ({"x": "\x7f"}, UNFIT),
        ({"x": "\u202e"}, UNFIT),
        ({"\u2066": 1}, UNFIT),
        ({"x": float("nan")}, "must be plain JSON"),
        ({"x": [float("inf")]}, "must be plain JSON"),
        (deep(100_000), "must be plain JSON"),
    ],
    ids=lambda value: spelled(value)[:20] if isinstance(value, str) else None,
)
def test_other_metadata_is_refused_with_the_reason(value: dict[str, Any], message: str) -> None:
    assert complaint(value) == message


@pytest.mark.parametrize(
    ("linked", "account", "shown"), [("a2", "a1", "a2"), (None, "a1", "a1"), ("a2", None, "a2"), (None, None, None)]
)
def test_a_session_shows_the_account_it_linked_or_else_the_one_it_is_about(
    linked: str | None, account: str | None, shown: str | None
) -> None:
    session = Session(
        "cs_1",
        "acme",
        "user:ann",
        Channel.BROWSER,
        Mode.EDIT,
        Status.LINKED,
        "workday",
        account,
        linked,
        NOON,
        NOON,
        multiple=True,
    )
    assert SessionStatus.of(session).model_dump() == {
        "id": "cs_1",
        "status": "linked",
        "mode": "edit",
        "provider": "workday",
        "account_id": shown,
        "was_new": None,
        "created_at": NOON,
        "expires_at": NOON,
        "oauth_error_code": None,
        "oauth_error_description": None,
        "attempt": None,
    }


def test_a_receipt_shows_everything_but_the_owner() -> None:
    erasure = Erasure("er_1", "acme", ErasureState.PENDING, "service:ops", NOON, NOON + timedelta(1), 3, 2, 7)

    assert ErasureReceipt.of(erasure).model_dump() == {
        "id": "er_1",
        "state": "pending",
        "requested_by": "service:ops",
        "requested_at": NOON,
        "completed_at": NOON + timedelta(1),
        "accounts": 3,
        "sessions": 2,
        "events": 7,
    }


def test_a_token_that_no_header_could_carry_is_refused() -> None:
    assert SessionPoll.model_validate({"token": "t" * 4096}).token.get_secret_value() == "t" * 4096
    for token in ("", "t" * 4097, "a\x00b", "a\ud800b", 7):
        with pytest.raises(ValidationError):
            SessionPoll.model_validate({"token": token})


def test_a_question_to_policy_is_asked_as_it_stands() -> None:
    question = ExplainRequest(
        owner_id="acme",
        channel=Channel.SERVICE,
        provider="workday",
        categories=[Category.HRIS, Category.ATS],
        connector_profile_id="profile-1",
        multiple=True,
        has_account=True,
        expires_in=61,
        claims={"plan": "gold"},
    )
    assert question.request(SessionSettings()) == Request(
        "acme",
        Channel.SERVICE,
        61,
        provider="workday",
        categories=(Category.HRIS, Category.ATS),
        connector_profile_id="profile-1",
        multiple=True,
        has_account=True,
        claims={"plan": "gold"},
    )


@pytest.mark.parametrize(
    ("channel", "lifetime"), [(Channel.BROWSER, 100), (Channel.SERVICE, 100), (Channel.AUTH_LINK, 200)]
)
def test_a_question_without_a_lifetime_gets_that_of_its_channel(channel: Any, lifetime: int) -> None:
    settings = SessionSettings(expires_in_seconds=100, auth_link_expires_in_seconds=200)

    assert ExplainRequest(owner_id="acme", channel=channel).request(settings) == Request("acme", channel, lifetime)


def test_an_explanation_shows_the_decision_and_the_way_to_it() -> None:
    policy = Policy(
        (
            Rule("others", line=1, owners=("globex",), providers=("*",)),
            Rule(
                "ours",
                line=5,
                owners=("acme",),
                categories=(Category.HRIS,),
                session_lifetime=60,
                max_accounts_per_provider=3,
            ),
        )
    )
    request = Request("acme", Channel.BROWSER, 1800)

    assert Explanation.of(decide(policy, request), consider(policy, request)).model_dump(mode="json") == {
        "allowed": True,
        "rule": "ours",
        "reason": 'rule "ours" allows it',
        "grant": {
            "categories": ["hris"],
            "multiple": False,
            "expires_in": 60,
            "max_accounts_per_provider": 3,
        },
        "considered": [
            {"rule": "others", "line": 1, "matched": False, "why": "it is for other owners"},
            {"rule": "ours", "line": 5, "matched": True, "why": None},
        ],
    }


def test_an_explanation_of_a_refusal_has_nothing_to_open() -> None:
    refused = Explanation.of(Decision(allowed=False, rule=None, reason="no"), [])
    assert (refused.allowed, refused.rule, refused.reason, refused.grant, refused.considered) == (
        False,
        None,
        "no",
        None,
        [],
    )
    everything = Grant(categories=None, multiple=True, expires_in=9, max_accounts_per_provider=None)
    allowed = Explanation.of(Decision(allowed=True, rule=None, reason="yes", grant=everything), [])
    assert allowed.grant is not None
    assert (allowed.grant.categories, allowed.grant.multiple) == (None, True)
