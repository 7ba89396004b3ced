"""Webhook deliveries: who signed them, and what they are about."""

import base64
import hashlib
import hmac
import json
from typing import Any

import pytest

from app.errors import Unauthenticated, Unprocessable
from app.stackone.webhook import Delivery, matching_secret, require_signature, unwrap

SECRETS = (b"first", b"second")
EVENT = {"event": "account.updated", "account_id": "a1", "project_id": "p", "provider": "bamboohr"}


def signature(body: bytes, secret: bytes = b"first") -> str:
    return base64.urlsafe_b64encode(hmac.digest(secret, body, "sha256")).rstrip(b"=").decode()


def unwrapped(payload: Any) -> Delivery:
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return unwrap(body, [signature(body, b"second")], SECRETS)


@pytest.mark.parametrize("secret", [0, 1])
def test_every_secret_counts_padded_or_not(secret: int) -> None:
    given = signature(b"body", SECRETS[secret])
    for spelled in (given, f"{given}="):
        require_signature([spelled])
        assert matching_secret(b"body", [spelled], SECRETS) == secret
    assert matching_secret(b"body", [given], (SECRETS[secret], SECRETS[secret])) == 0


@pytest.mark.parametrize(
    "given",
    [[], [""], ["x"], [signature(b"body") * 2], [signature(b"body"), signature(b"body")], [signature(b"body") + "=="]],
)
def test_what_is_no_signature_is_refused_before_the_body_is_read(given: list[str]) -> None:
    with pytest.raises(Unauthenticated) as refused:
        require_signature(given)
    assert "missing, repeated or malformed" in refused.value.reason
    assert refused.value.challenge_error == ("invalid_token" if given else None)
    assert matching_secret(b"body", given, SECRETS) is None
    with pytest.raises(Unauthenticated) as refused:
        unwrap(b"body", given, SECRETS)
    assert refused.value.challenge_error == ("invalid_token" if given else None)


def test_a_signature_of_something_else_is_refused() -> None:
    for given, secrets in (
        (signature(b"other"), SECRETS),
        (signature(b"body", b"third"), SECRETS),
        (signature(b"body", b""), (b"",)),
        (signature(b"body"), ()),
    ):
        with pytest.raises(Unauthenticated) as refused:
            unwrap(b"body", [given], secrets)
        assert refused.value.reason == "webhook signature does not match"


def test_an_event_says_where_to_look() -> None:
    delivery = unwrapped(EVENT)
    assert (delivery.secret_position, delivery.digest) == (1, hashlib.sha256(json.dumps(EVENT).encode()).digest())
    event = delivery.event
    assert event is not None
    assert (event.event, event.account_id, event.project_id, event.provider) == (
        "account.updated",
        "a1",
        "p",
        "bamboohr",
    )


def test_an_account_may_be_named_as_the_record_alone() -> None:
    bare = {"event": "account.deleted", "record_type": "account", "record_id": 47_187_425_466_113_776_871}
    event = unwrapped(bare).event
    assert event is not None
    assert (event.account_id, event.project_id, event.provider) == ("47187425466113776871", None, None)
    named = unwrapped({**bare, "account_id": "a1", "connector": "workday"}).event
    assert named is not None
    assert (named.account_id, named.provider) == ("a1", "workday")


@pytest.mark.parametrize("name", ["request.failed", "accounts.created", "account", "x.account.created", ""])
def test_other_events_are_about_no_account(name: str) -> None:
    assert unwrapped({"event": name}).event is None


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b"\xff", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"null", "names no event"),
        (b'["account.created"]', "names no event"),
        ({"event": 5}, "names no event"),
        ({"account_id": "a1"}, "names no event"),
        ({"event": "account.created"}, "is not an account event"),
        ({"event": "account.created", "record_id": "a1"}, "is not an account event"),
        ({"event": "account.created", "record_type": "employee", "record_id": "a1"}, "is not an account event"),
        ({"event": "account.created", "account_id": 1.5}, "is not an account event"),
        ({"event": "account.created", "account_id": "a" * 256}, "is not an account event"),
        ({"event": "account." + "x" * 121, "account_id": "a1"}, "is not an account event"),
    ],
)
def test_what_is_genuine_and_no_event(payload: Any, why: str) -> None:
    with pytest.raises(Unprocessable) as refused:
        unwrapped(payload)
    assert (refused.value.detail or "").startswith("the delivery is signed but ")
    assert (refused.value.detail or "").endswith(why)


def test_what_can_be_done_without_is_left_out_where_it_is_strange() -> None:
    for strange in ({"provider": 7.5, "project_id": {}}, {"provider": "p" * 256, "project_id": None}):
        event = unwrapped({**EVENT, **strange}).event
        assert event is not None
        assert (event.provider, event.project_id) == (None, None)
    longest = unwrapped({**EVENT, "event": "account." + "x" * 120, "provider": "p" * 255, "project_id": 7}).event
    assert longest is not None
    assert (longest.provider, longest.project_id) == ("p" * 255, "7")
