"""What StackOne sends, read as far as it can be read; and what is sent to it."""

from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from app.stackone.models import (
    Account,
    AccountPage,
    AuthConfig,
    AuthenticatedSession,
    Category,
    ConnectSession,
    ConnectSessionRequest,
    OwnedConnectSessionRequest,
    SessionType,
    possible_account_id,
)

ACCOUNT: dict[str, Any] = {
    "id": "a1",
    "provider": "bamboohr",
    "status": "active",
    "origin_owner_id": "acme",
    "origin_owner_name": "Acme",
    "created_at": "2026-11-25T00:00:00Z",
    "updated_at": "2026-11-26T00:00:00Z",
}
SESSION: dict[str, Any] = {"id": 7, "token": "t", "auth_link_url": "https://app.example/t"}


def account(**changes: Any) -> Account:
    return Account.model_validate({**ACCOUNT, **changes})


@pytest.mark.parametrize(
    ("account_id", "is_possible"),
    [
        ("a", True),
        ("A-_9" * 60, True),
        ("a" * 255, True),
        ("a" * 256, False),
        ("", False),
        ("a b", False),
        ("a.b", False),
        ("a\n", False),
        ("ä", False),
        ("../a", False),
    ],
)
def test_ids_that_accounts_can_have(account_id: str, *, is_possible: bool) -> None:
    assert possible_account_id(account_id) is is_possible


@pytest.mark.parametrize(
    "changes",
    [
        {"id": None},
        {"id": ""},
        {"id": "a b"},
        {"id": "a\x00"},
        {"id": 1.0},
        {"id": float("nan")},
        {"id": True},
        {"id": ["a1"]},
        {"provider": None},
        {"provider": 7},
        {"provider": "p" * 256},
        {"status": None},
        {"status": "s" * 256},
        {"status": {"code": 1}},
        {"updated_at": None},
        {"updated_at": "yesterday"},
        {"updated_at": "0001-01-01T00:00:00+12:00"},
        {"updated_at": float("inf")},
    ],
)
def test_what_an_account_needs_must_be_right(changes: dict[str, Any]) -> None:
    with pytest.raises((ValidationError, OverflowError)):
        account(**changes)


@pytest.mark.parametrize(
    ("sent", "read"),
    [(12_345_678_901_234_567_890, "12345678901234567890"), (0, "0"), ("x" * 255, "x" * 255), ("A-1_z", "A-1_z")],
)
def test_ids_are_text(sent: Any, read: str) -> None:
    assert account(id=sent).id == read


@pytest.mark.parametrize(
    ("owner_id", "read"),
    [
        ("acme", "acme"),
        ("Acme GmbH & Co", "Acme GmbH & Co"),
        ("o" * 255, "o" * 255),
        ("o" * 256, None),
        ("", None),
        (" acme", None),
        ("acme ", None),
        ("acme\x00", None),
        ("ac\u202eme", None),
        ("ac\ud800me", None),
        ("a/b", None),
        ("..", None),
        (7, None),
        (["acme"], None),
        (None, None),
    ],
)
def test_an_owner_is_compared_as_it_is_or_is_nobody(owner_id: Any, read: str | None) -> None:
    assert account(origin_owner_id=owner_id).owner_id == read


def test_both_spellings_are_read_and_the_one_that_says_something_counts() -> None:
    names = {"provider": "connector", "origin_owner_id": "owner_id", "origin_owner_name": "owner_name"}
    second = {names.get(name, name): value for name, value in ACCOUNT.items()}
    assert Account.model_validate(second) == account()
    assert Account.model_validate({**second, **dict.fromkeys(names)}) == account()
    assert account(connector="other", owner_id="other").owner_id == "acme"


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        ("text", "text"),
        ("a\x00b\ud800", "ab?"),
        (7, "7"),
        (7.5, None),
        (True, None),
        ({"key": "x"}, None),
        (["x"], None),
        ("x" * 1001, "x" * 1000),
        ("", ""),
        (None, None),
    ],
)
@pytest.mark.parametrize("name", ["label", "origin_username", "origin_owner_name", "type", "project_id"])
def test_a_text_that_can_be_done_without(name: str, sent: Any, read: str | None) -> None:
    ours = {"origin_username": "username", "origin_owner_name": "owner_name"}.get(name, name)
    assert getattr(account(**{name: sent}), ours) == read


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        ("2026-11-25T00:00:00", datetime(2026, 11, 25, tzinfo=UTC)),
        ("2026-11-25T02:00:00+02:00", datetime(2026, 11, 25, tzinfo=UTC)),
        (1_764_028_800, datetime(2025, 11, 25, tzinfo=UTC)),
        ("never", None),
        ({}, None),
        (1e300, None),
        ("0001-01-01T00:00:00+12:00", None),
    ],
)
def test_times_are_utc(sent: Any, read: datetime | None) -> None:
    assert account(created_at=sent).created_at == read
    if read is not None:
        found = account(updated_at=sent).updated_at
        assert (found, found.utcoffset()) == (read, read.utcoffset())


def test_reasons_are_read_as_far_as_they_can_be() -> None:
    reasons = account(status_reasons=[{"code": 1, "description": ["x"]}, "x", None, {"timestamp": "t"}]).status_reasons
    assert [reason.model_dump() for reason in reasons or ()] == [
        {"code": "1", "description": None, "timestamp": None},
        {"code": None, "description": None, "timestamp": "t"},
    ]
    assert account(status_reasons={"code": "x"}).status_reasons is None
    assert len(account(status_reasons=[{"code": "x"}] * 99).status_reasons or ()) == 20


def test_a_page_counts_what_it_could_not_read() -> None:
    assert (AccountPage([account()], unreadable=2).rows, AccountPage(()).rows) == (3, 0)


def test_an_auth_config_is_read_as_far_as_it_can_be() -> None:
    config = AuthConfig.model_validate(
        {"id": 7, "connector_key": "k", "connector_label": 5, "logo_url": [], "active": None, "categories": ["hris", 7]}
    )
    assert config == AuthConfig.model_validate({"id": "7", "key": "k", "label": "5", "categories": ["hris"]})
    assert (config.enabled, config.default, config.logo_url) == (True, False, None)
    odd: list[Any] = [None, "hris", {"hris": 1}]
    for categories in odd:
        assert AuthConfig.model_validate({"id": "7", "key": "k", "categories": categories}).categories == ()
    many = AuthConfig.model_validate({"id": "7", "key": "k", "categories": ["c" * 256, *map(str, range(99))]})
    assert many.categories == tuple(map(str, range(50)))
    assert AuthConfig.model_validate({"id": "7", "key": "k", "categories": ["c" * 255]}).categories == ("c" * 255,)


@pytest.mark.parametrize(
    "changes",
    [
        {"id": None},
        {"token": None},
        {"token": ""},
        {"token": 7},
        {"token": "a\nb"},
        {"auth_link_url": None},
        {"auth_link_url": ""},
        {"auth_link_url": "javascript:alert(1)"},
        {"auth_link_url": "ftp://app.example/"},
        {"auth_link_url": "https://"},
        {"auth_link_url": "https://app.example/a b"},
        {"auth_link_url": "see https://app.example/"},
        {"auth_link_url": "https://app.example\\@evil.example"},
        {"auth_link_url": "https://app.example/\u202e"},
    ],
)
def test_a_session_that_nobody_could_use(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ConnectSession.model_validate({**SESSION, **changes})


def test_what_a_session_echoes_is_told_by_the_names_it_was_sent_with() -> None:
    session = ConnectSession.model_validate({**SESSION, "origin_owner_id": 7, "integration_id": "p"})
    assert session.echoes() == {"origin_owner_id": "7", "account_id": None, "connector_profile_id": "p"}
    assert session.unechoed({"origin_owner_id": "7", "account_id": "a", "provider": "p"}) == ["account_id"]
    assert ConnectSession.model_validate({**SESSION, "auth_link_url": "http://127.0.0.1:8100/?t"}).id == "7"
    both = ConnectSession.model_validate({**SESSION, "connector_profile_id": None, "integration_id": "p"})
    assert both.echoes()["connector_profile_id"] == "p"


def test_an_attempt_is_read_as_far_as_it_can_be() -> None:
    def attempt(**values: Any) -> Any:
        session = {"id": 1, "origin_owner_id": "acme", "latest_connection_attempt": values}
        return AuthenticatedSession.model_validate(session).latest_connection_attempt

    told = attempt(
        status="error", account_secure_id=7, oauth_error_code=" a \n b\x00 ", oauth_error_description="d" * 501
    )
    assert (told.status, told.account_id, told.oauth_error_code, told.oauth_error_description) == (
        "error",
        "7",
        "a b",
        "d" * 500,
    )
    assert attempt(oauth_error_code="c" * 256).oauth_error_code == "c" * 255
    odd = attempt(status=7, account_secure_id={}, oauth_error_code=[], oauth_error_description=" ")
    assert set(odd.model_dump().values()) == {None}
    session = {"id": 1, "latest_connection_attempt": "none", "external_trigger_token": 7}
    read = AuthenticatedSession.model_validate(session)
    assert (read.origin_owner_id, read.latest_connection_attempt, read.external_trigger_token) == (None, None, None)
    whole = AuthenticatedSession.model_validate({**session, "external_trigger_token": "x"})
    assert whole.external_trigger_token == SecretStr("x")


def test_only_what_was_asked_for_is_sent() -> None:
    bare = OwnedConnectSessionRequest("acme", "Acme", None, ConnectSessionRequest())
    assert bare.body() == {"origin_owner_id": "acme", "origin_owner_name": "Acme"}
    full = ConnectSessionRequest(
        provider="bamboohr",
        categories=(Category.HRIS, Category.HRIS_LEGACY),
        account_id="a",
        multiple=False,
        expires_in=60,
        metadata={},
        label="l",
        type=SessionType.TEST,
        shared=False,
        connector_profile_id="p",
    )
    assert OwnedConnectSessionRequest("acme", "Acme", "ann", full).body() == {
        "origin_owner_id": "acme",
        "origin_owner_name": "Acme",
        "origin_username": "ann",
        "provider": "bamboohr",
        "categories": ["hris", "hris-legacy"],
        "account_id": "a",
        "multiple": False,
        "expires_in": 60,
        "metadata": {},
        "label": "l",
        "type": "test",
        "shared": False,
        "connector_profile_id": "p",
    }
