"""What an answer's status, headers and body say."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.stackone import answers

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)


def test_what_passes_and_what_does_not() -> None:
    passing = {status for status in range(100, 1000) if answers.may_pass(status)}
    assert passing == {408, 425, 429, *range(500, 1000)} - {501, 505}


@pytest.mark.parametrize(
    ("answer", "is_error"),
    [
        ({"statusCode": 400}, True),
        ({"statusCode": 404, "message": "no"}, True),
        ({"statusCode": 399}, False),
        ({"statusCode": "404"}, False),
        ({"error": "x"}, True),
        ({"error": None, "errors": []}, False),
        ({"errors": ["x"]}, True),
        ({}, False),
        ([{"error": "x"}], False),
        ("error", False),
        (None, False),
    ],
)
def test_errors_in_disguise(answer: Any, *, is_error: bool) -> None:
    assert answers.is_error(answer) is is_error


@pytest.mark.parametrize(
    ("content", "is_its_own"),
    [
        (b'{"statusCode": 404, "message": "Account not found"}', True),
        (b'{"statusCode": 404, "message": ["Account not found"]}', True),
        (b'{"statusCode": 404, "message": null}', False),
        (b'{"statusCode": 404}', False),
        (b'{"statusCode": "404", "message": "x"}', False),
        (b'{"statusCode": 400, "message": "x"}', False),
        (b'{"message": "no Route matched"}', False),
        (b'{"statusCode": 404, "message": "no Route matched with those values"}', False),
        (b'{"statusCode": 404, "message": "Cannot GET /accounts/1", "error": "Not Found"}', False),
        (b'{"statusCode": 404, "message": "Cannot DELETE /accounts/1", "timestamp": "2026-11-22"}', False),
        (b'{"statusCode": 404, "message": ["Cannot GET /accounts/1"]}', False),
        (b'{"statusCode": 404, "message": "Route GET:/accounts/1 not found", "error": "Not Found"}', False),
        (b'{"statusCode": 404, "message": "Resource not found"}', False),
        (b'{"statusCode": 404, "message": "Resource not found", "timestamp": "2026-11-22T00:00:00Z"}', True),
        (b'{"statusCode": 404, "message": "Cannot get account"}', True),
        (b'{"statusCode": 404, "message": [1]}', True),
        (b'[{"statusCode": 404, "message": "x"}]', False),
        (b"<html>", False),
        (b"", False),
        (b"\xff", False),
        (b"[" * 100_000, False),
    ],
)
def test_its_own_404(content: bytes, *, is_its_own: bool) -> None:
    assert answers.says_not_found(content) is is_its_own


@pytest.mark.parametrize(
    ("header", "skew"),
    [
        ("Thu, 26 Nov 2026 12:00:05 GMT", timedelta(seconds=5)),
        ("Thu, 26 Nov 2026 11:59:00 GMT", timedelta(minutes=-1)),
        (None, None),
        ("", None),
        ("yesterday", None),
        ("Thu, 26 Nov 2026 12:00:00 -0000", None),
        ("Fri, 31 Dec 9999 23:59:59 -9999", None),
    ],
)
def test_how_far_the_clocks_are_apart(header: str | None, skew: timedelta | None) -> None:
    assert answers.clock_skew(header, NOW) == skew


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("0", 0),
        ("7", 7),
        ("12.5", 12.5),
        ("300", 300),
        ("301", 300),
        ("864000", 300),
        ("1e400", 300),
        ("-1", None),
        ("nan", None),
        ("", None),
        ("soon", None),
        ("Thu, 26 Nov 2026 12:01:00 GMT", 60),
        ("Thu, 26 Nov 2026 12:01:00 -0000", 60),
        ("Thu, 26 Nov 2026 13:01:00 +0100", 60),
        ("Thu, 26 Nov 2026 12:00:00 GMT", 0),
        ("Thu, 26 Nov 2026 11:59:59.5 GMT", None),
        ("Thu, 26 Nov 2026 11:59:59 GMT", None),
        ("Thu, 26 Nov 2027 12:00:00 GMT", 300),
        ("Fri, 31 Dec 9999 23:59:59 -9999", None),
    ],
)
def test_how_long_to_wait(header: str | None, seconds: float | None) -> None:
    assert answers.retry_after(header, NOW) == seconds


def test_no_header_is_too_strange() -> None:
    for text in json.loads('["\\u0000", "\\ud800", ",", "Thu", "9999999999999999999999", "1_0"]'):
        answers.retry_after(text, NOW)
        answers.clock_skew(text, NOW)
