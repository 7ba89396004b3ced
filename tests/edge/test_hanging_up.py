"""A client that hangs up in the middle of anything: no error of ours, no traceback, and nothing is acted upon."""

import asyncio
import base64
import hmac
import json

import pytest
from structlog.testing import capture_logs

from tests.edge.conftest import Edge, statuses
from tests.support.world import WEBHOOK_SECRET

pytestmark = pytest.mark.anyio

BODY = json.dumps({"event": "account.created", "account_id": "123", "padding": "x" * 60}).encode()
JSON_BODY = json.dumps({"provider": "bamboohr"}).encode()


def signature(body: bytes = BODY) -> bytes:
    """Sign as StackOne does."""
    return base64.urlsafe_b64encode(hmac.digest(WEBHOOK_SECRET.encode(), body, "sha256")).rstrip(b"=")


def webhook(*lines: bytes) -> bytes:
    return b"".join(
        [
            b"POST /v1/webhooks/stackone HTTP/1.1\r\nHost: b\r\nContent-Type: application/json\r\n",
            b"Content-Length: %d\r\n" % len(BODY),
            *(line + b"\r\n" for line in lines),
            b"\r\n",
        ]
    )


async def hang_up_after(edge: Edge, sent: bytes) -> None:
    async with edge.connected() as (reader, writer):
        writer.write(sent)
        await writer.drain()
        # The broker gets as far as it can: it waits for the rest now, and gets an end instead.
        await asyncio.sleep(0)
        writer.transport.abort()
        del reader


async def test_a_request_cut_at_every_byte_is_no_error_of_ours(edge: Edge, caplog: pytest.LogCaptureFixture) -> None:
    mint = b"POST /v1/connect-sessions HTTP/1.1\r\nHost: b\r\nContent-Type: application/json\r\n" + edge.as_user()
    whole = {
        "webhook": webhook(b"x-stackone-signature: " + signature()) + BODY,
        "mint": mint + b"Content-Length: %d\r\n\r\n" % len(JSON_BODY) + JSON_BODY,
        "chunked": mint + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(JSON_BODY), JSON_BODY),
    }
    with capture_logs() as lines:
        for request in whole.values():
            await asyncio.gather(*(hang_up_after(edge, request[:place]) for place in range(1, len(request))))
    answered = await edge.send(b"GET /livez HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n")
    assert statuses(answered) == [200]
    assert edge.sent_upstream == []
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []
    assert not any(record.exc_info for record in caplog.records)
    assert not [line for line in lines if line["log_level"] == "error" or "exc_info" in line]


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [b"x-stackone-signature: "],
        [b"x-stackone-signature: " + b"A" * 44],
        [b"x-stackone-signature: " + signature()] * 2,
        [b"x-stackone-signature: sha256=" + signature()],
        [b"x-stackone-signature: " + signature()[:-1]],
    ],
    ids=["none", "empty", "too long", "twice", "prefixed", "too short"],
)
async def test_a_body_without_a_possible_signature_is_not_waited_for(edge: Edge, lines: list[bytes]) -> None:
    async with edge.connected() as (reader, writer), asyncio.timeout(0.4):
        writer.write(webhook(*lines))
        await writer.drain()
        assert b"401" in await reader.readline()
