"""What a log line is: JSON, complete, and without a secret, whichever way it is put together."""

import contextlib
import io
import json
import logging
import random
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from asgi_correlation_id import correlation_id
from structlog.testing import capture_logs

from app.logs import REDACTED, Redactor, configure_logs

SECRETS = ["plain-secret-1234", 's3cr"et\\with é', "p4ss://word"]
SHAPES = [
    "eyJhbGciOiJub25l.eyJzdWIiOiIxIn0.c2ln",
    "sk_live_abcdefghijkl",
    "Bearer abcdefghijkl",
    "Basic\tYWJjZGVmZ2g=",
    "v1.eu1.abcdefghijkl",
    "/x?token=abc&state=def",
    "https://user:password@host/",
]
log = structlog.get_logger("tests.logs")


@pytest.fixture
def said() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    configure_logs("INFO", SECRETS, stream=stream)
    yield stream
    configure_logs("INFO")


def lines(said: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in said.getvalue().splitlines()]


def test_a_line_says_what_when_who_and_in_which_request(said: io.StringIO) -> None:
    token = correlation_id.set("abc")
    log.warning("something_happened", number=1, share=0.5, nothing=None, text="a\nb", listed=[1, {"x": "y"}])
    correlation_id.reset(token)
    log.debug("not_told")
    logging.getLogger("some.library").error("it said %s", SECRETS[0])
    ours, theirs = lines(said)
    assert ours.pop("timestamp").endswith("Z")
    assert ours == {
        "event": "something_happened",
        "level": "warning",
        "logger": "tests.logs",
        "request_id": "abc",
        "number": 1,
        "share": 0.5,
        "nothing": None,
        "text": "a\nb",
        "listed": [1, {"x": "y"}],
    }
    assert (theirs["event"], theirs["level"], theirs["logger"]) == (f"it said {REDACTED}", "error", "some.library")


def test_a_traceback_is_told_without_the_secrets_in_it(said: io.StringIO) -> None:
    try:
        int(f"{SECRETS[0]} {SHAPES[1]}")
    except ValueError:
        log.exception("failed")
    [line] = lines(said)
    assert line["level"] == "error"
    assert "Traceback" in line["exception"]
    assert not any(secret in said.getvalue() for secret in (SECRETS[0], SHAPES[1]))


def test_loggers_made_before_keep_to_what_is_configured_later(said: io.StringIO) -> None:
    log.info("first")
    configure_logs("CRITICAL", stream=said)
    log.info("second")
    with capture_logs() as captured:
        log.info("third")
    later = io.StringIO()
    configure_logs("INFO", stream=later)
    log.info("fourth")
    assert [line["event"] for line in lines(said)] == ["first"]
    assert [line["event"] for line in captured] == ["third"]
    assert [line["event"] for line in lines(later)] == ["fourth"]


@pytest.mark.usefixtures("said")
def test_lines_follow_standard_output_when_it_is_redirected() -> None:
    closed = io.StringIO()
    with contextlib.redirect_stdout(closed):
        configure_logs("INFO")
        log.info("first")
    closed.close()
    later = io.StringIO()
    with contextlib.redirect_stdout(later):
        log.info("second")
        logging.getLogger("some.library").warning("third")
    assert [line["event"] for line in lines(later)] == ["second", "third"]


def test_the_short_way_hides_what_the_long_way_hides() -> None:
    redactor = Redactor(SECRETS)
    chance = random.Random(11)  # noqa: S311  a test's randomness
    pieces = [
        *SECRETS,
        *SHAPES,
        "a",
        " ",
        "\n",
        "\t",
        '"',
        "\\",
        "é",
        "\u2028",
        "\U0001f600",
        "sk",
        "eyJ",
        "v1.eu",
        "?",
    ]
    hidden = 0
    for _ in range(5000):
        event: dict[str, Any] = {}
        for name in chance.sample(["event", "route", "Token", "reason", "api_key", "n"], 3):
            text = "".join(chance.choices(pieces, k=chance.randrange(6)))
            event[name] = chance.choice(
                [text, text, text, 7, 0.5, None, True, [text], {"password": text}, text.encode()]
            )
        long_way = redactor(None, "", event)
        assert json.loads(redactor.rendered(dict(event))) == json.loads(json.dumps(long_way))
        hidden += REDACTED in json.dumps(long_way)
    assert 1000 < hidden < 4900


def test_lines_for_people_hide_what_json_hides_and_hold_nothing_that_a_terminal_obeys() -> None:
    stream = io.StringIO()
    configure_logs("INFO", SECRETS, stream=stream, console=True)
    try:
        log.info("request", route="/v1/x", note=f"{SECRETS[0]} \x1b[31m\r", token="abcdef", listed=[SECRETS[1]])
        logging.getLogger("some.library").error("it said %s\n\x1b[2J", SECRETS[0])
        try:
            int(f"{SECRETS[0]} {SHAPES[1]} \x1b[2J")
        except ValueError:
            log.exception("failed")
            logging.getLogger("some.library").exception("failed too")
    finally:
        configure_logs("INFO")
    told = stream.getvalue()
    assert "route=/v1/x" in told
    assert told.count("Traceback") == 2
    assert not [secret for secret in (*SECRETS[:2], SHAPES[1], "abcdef") if secret in told]
    assert all(character.isprintable() or character == "\n" for character in told)
