"""What StackOne refuses: whose mistake it is, and what of its words is logged."""

import json
from typing import Any

import pytest

from app.errors import Conflict, FieldError, Unprocessable
from app.stackone.refusals import Refused, mint_refusal, read_refusal


def refused(status: int, body: Any, sent: object = None) -> Refused:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return read_refusal(status, content, sent=sent)


def its_own(status: int, **more: Any) -> Refused:
    return refused(status, {"statusCode": status, "message": "no", **more})


@pytest.mark.parametrize("body", [b"", b"<html>", b"\xff", b"[" * 100_000, [], "x", 7, None])
def test_what_is_no_object_is_not_stackones(body: Any) -> None:
    read = refused(400, body)
    assert (read.upstream_status, read.error_code, read.message) == (400, None, None)
    assert (read.genuine, read.is_object) == (False, False)


@pytest.mark.parametrize(
    ("body", "is_genuine"),
    [
        ({"statusCode": 400, "message": "x"}, True),
        ({"statusCode": 400, "message": ["x"]}, True),
        ({"statusCode": 400}, False),
        ({"statusCode": 400, "message": 7}, False),
        ({"statusCode": 404, "message": "x"}, False),
        ({"message": "x"}, False),
    ],
)
def test_its_own_errors_have_one_shape(body: dict[str, Any], *, is_genuine: bool) -> None:
    read = refused(400, body)
    assert (read.genuine, read.is_object) == (is_genuine, True)


@pytest.mark.parametrize(
    ("code", "kept"),
    [
        ("ValidationError", True),
        ("a" * 64, True),
        ("a" * 65, False),
        ("a b", False),
        ("7a", False),
        ("", False),
        (7, False),
    ],
)
def test_a_code_is_kept_if_it_is_one(code: Any, *, kept: bool) -> None:
    assert its_own(400, errorCode=code).error_code == (code if kept else None)


def test_its_words_are_kept_without_anything_that_was_sent() -> None:
    sent = (
        {
            "origin_owner_name": "Acme",
            "n": 42,
            "yes": True,
            "list": ["Bob", ["Carol"]],
            "metadata": {"Dave": {"Eve": 1.5}},
            "nothing": None,
            "empty": "",
        },
        {"page": 7},
        "/accounts/acc-9",
    )
    message = "ACME of acme 42 True Bob Carol Dave Eve 1.5 7 acc-9 /accounts/acc-9 page Zoe\nline\x00"
    read = refused(422, {"statusCode": 422, "message": message}, sent)
    sent_and_not = "[sent] of [sent] [sent] True [sent] [sent] [sent] [sent] [sent] [sent] [sent] [sent] page Zoe line "
    assert read.message == sent_and_not
    assert refused(422, {"message": "x" * 201}).message == "x" * 200
    assert refused(422, {"message": ["x"]}).message is None


def test_the_longest_text_is_left_out_first() -> None:
    assert refused(400, {"message": "Acme Inc"}, ["Acme", "Acme Inc"]).message == "[sent]"


@pytest.mark.parametrize("status", [401, 403, 402, 405, 410, 501])
def test_what_is_the_operators(status: int) -> None:
    read = its_own(status)
    assert read.is_operators
    assert mint_refusal(read) is read
    told = {401: "check the API key and its scopes", 403: "check the API key and its scopes", 410: "ACCOUNTS_PATH"}
    detail = read.detail or ""
    assert detail.startswith(f"StackOne answered {status}; ")
    assert told.get(status, "see the broker's log") in detail


@pytest.mark.parametrize("status", [400, 404, 412, 422])
def test_what_is_the_callers(status: int) -> None:
    read = its_own(status)
    assert not read.is_operators
    error = mint_refusal(read)
    message = f"StackOne does not accept this request (it answered {status})"
    assert isinstance(error, Unprocessable)
    assert (error.detail, error.errors) == (message, (FieldError("body", message),))
    # What something in front of it says for itself says nothing about the request.
    assert mint_refusal(refused(status, b"<html>")).status == 502
    assert mint_refusal(refused(status, {"message": "no"})).status == (502 if status == 404 else 422)


def test_a_clash() -> None:
    read = its_own(409)
    assert not read.is_operators
    error = mint_refusal(read)
    assert isinstance(error, Conflict)
    assert error.detail == "StackOne answered 409: this clashes with what is there already"
    assert mint_refusal(refused(409, b"<html>")).status == 502
