"""Faults on request; those of the connection over real sockets."""

from collections.abc import AsyncIterator
from typing import Any

import anyio
import httpx2
import pytest

from sandbox.bounded_log import BoundedLog
from tests.sandbox.look import Look

pytestmark = pytest.mark.anyio


async def fault(look: Look, **fields: object) -> None:
    answer = await look.switch.post("/_sandbox/faults", json=fields)
    assert answer.status_code == 201, answer.text


@pytest.fixture
async def wire(look: Look, on_the_wire: str) -> AsyncIterator[httpx2.AsyncClient]:
    auth = (look.project.config.api_key, "")
    async with httpx2.AsyncClient(base_url=on_the_wire, auth=auth, trust_env=False) as client:
        yield client


async def collect(answer: httpx2.Response, got: list[bytes]) -> None:
    async for chunk in answer.aiter_bytes():
        got.append(chunk)  # noqa: PERF401  what came before the break must be kept


async def test_a_status_comes_with_the_documented_body(look: Look) -> None:
    await fault(look, status=503, headers={"Retry-After": "7"})
    answer = await look.api.get("/accounts")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "7")
    assert answer.json() == {"statusCode": 503, "message": "Injected 503", "timestamp": "2026-11-20T09:00:00.000Z"}
    assert (await look.api.get("/accounts")).status_code == 200


async def test_times_method_and_path_prefix_select_calls(look: Look) -> None:
    await fault(look, method="get", path="/accounts/", times=2, status=500)
    assert (await look.api.get("/accounts")).status_code == 200
    assert (await look.api.patch("/accounts/x", json={})).status_code == 404
    assert [(await look.api.get("/accounts/x")).status_code for _ in range(3)] == [500, 500, 404]


async def test_null_times_last_until_cleared(look: Look) -> None:
    await fault(look, times=None, status=500)
    assert {(await look.api.get("/accounts")).status_code for _ in range(5)} == {500}
    await look.switch.delete("/_sandbox/faults")
    assert (await look.api.get("/accounts")).status_code == 200


async def test_faults_queue_up(look: Look) -> None:
    await fault(look, status=500)
    await fault(look, status=502)
    assert [row["status"] for row in (await look.switch.get("/_sandbox/faults")).json()] == [500, 502]
    first = (await look.switch.get("/_sandbox/faults")).json()[0]["id"]
    assert [row["status"] for row in (await look.switch.get(f"/_sandbox/faults?after={first}")).json()] == [502]
    assert [(await look.api.get("/accounts")).status_code for _ in range(3)] == [500, 502, 200]


@pytest.mark.parametrize(
    ("body", "text", "kind"),
    [
        ({"a": [1]}, '{"a": [1]}', "application/json"),
        ("<html>", "<html>", "text/plain; charset=utf-8"),
        ('{"half', '{"half', "text/plain; charset=utf-8"),
        ([], "[]", "application/json"),
        (0, "0", "application/json"),
    ],
)
async def test_any_body(look: Look, body: Any, text: str, kind: str) -> None:
    await fault(look, body=body)
    answer = await look.api.get("/accounts")
    assert (answer.status_code, answer.text, answer.headers["content-type"]) == (200, text, kind)


async def test_headers_alone_change_the_real_answer(look: Look) -> None:
    account = await look.link()
    await fault(look, headers={"content-type": "text/html"})
    answer = await look.api.get("/accounts")
    assert answer.headers["content-type"] == "text/html"
    assert answer.json()[0]["id"] == account["id"]


async def test_a_204_has_no_body(look: Look) -> None:
    await fault(look, status=204)
    assert (await look.api.get("/accounts")).content == b""


async def test_the_switches_are_never_hit(look: Look) -> None:
    await fault(look, times=None, status=500)
    assert (await look.switch.get("/_sandbox/requests")).status_code == 200


async def test_the_hub_can_read_a_fault(look: Look) -> None:
    await fault(look, path="/hub", status=500)
    answer = await look.browser.get("/hub/settings", headers={"origin": "https://any.example"})
    assert answer.headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize(
    "fields", [{"status": 99}, {"status": 600}, {"times": 0}, {"delay_ms": -1}, {"hang": "yes"}, {"x": 1}, {"path": 1}]
)
async def test_senseless_faults_are_400(look: Look, fields: dict[str, Any]) -> None:
    assert (await look.switch.post("/_sandbox/faults", json=fields)).status_code == 400


async def test_a_delay_is_only_a_delay(look: Look, wire: httpx2.AsyncClient) -> None:
    await look.link()
    await fault(look, delay_ms=120)
    with anyio.fail_after(5):
        started = anyio.current_time()
        answer = await wire.get("/accounts")
    assert anyio.current_time() - started >= 0.12
    assert len(answer.json()) == 1
    await fault(look, delay_ms=60_000)
    with pytest.raises(httpx2.ReadTimeout):
        await wire.get("/accounts", timeout=0.1)


async def test_a_hanging_call_is_never_answered_and_holds_up_nobody(look: Look, wire: httpx2.AsyncClient) -> None:
    await fault(look, path="/connect_sessions", hang=True)
    body = {"origin_owner_id": "o", "origin_owner_name": "n"}
    with pytest.raises(httpx2.ReadTimeout):
        await wire.post("/connect_sessions", json=body, timeout=0.1)
    assert (await wire.post("/connect_sessions", json=body)).status_code == 201
    first, second = (await look.switch.get("/_sandbox/requests")).json()
    assert (first["status"], second["status"]) == (None, 201)


async def test_a_cut_answer_breaks_off_after_half_the_body(look: Look, wire: httpx2.AsyncClient) -> None:
    await fault(look, status=200, body="0123456789", cut=True)
    got: list[bytes] = []
    async with wire.stream("GET", "/accounts") as answer:
        assert answer.headers["content-length"] == "10"
        with pytest.raises(httpx2.RemoteProtocolError):
            await collect(answer, got)
    assert b"".join(got) == b"01234"


async def test_a_cut_without_an_answer_of_its_own_loses_the_answer_not_the_effect(
    look: Look, wire: httpx2.AsyncClient
) -> None:
    account = await look.link()
    await fault(look, method="DELETE", cut=True)
    with pytest.raises(httpx2.RemoteProtocolError):
        await wire.delete(f"/accounts/{account['id']}")
    assert (await wire.get(f"/accounts/{account['id']}")).status_code == 404


async def test_requests_are_on_record(look: Look) -> None:
    account = await look.link()
    await look.api.patch(f"/accounts/{account['id']}?a=1", json={"label": "ä"}, headers={"x-extra": "1"})
    await look.api.get("/accounts")
    await look.api.post("/connect_sessions", content=b"\xff{", headers={"content-type": "application/json"})
    patch, listing, broken = (await look.switch.get("/_sandbox/requests")).json()
    assert (patch["method"], patch["path"], patch["query"]) == ("PATCH", f"/accounts/{account['id']}", "a=1")
    assert patch["headers"]["authorization"].startswith("Basic ")
    assert patch["headers"]["x-extra"] == "1"
    assert patch["body"] == {"label": "ä"}
    assert patch["at"] == "2026-11-20T09:00:00.000Z"
    assert (patch["status"], listing["body"], broken["body"], broken["status"]) == (200, None, "\ufffd{", 400)


async def test_the_record_has_pages_and_filters(look: Look) -> None:
    for _ in range(4):
        await look.api.get("/accounts")
    await look.api.get("/accounts/x")

    start = (await look.switch.get("/_sandbox/requests")).json()[0]["n"] - 1

    async def numbers(query: str) -> list[int]:
        return [entry["n"] - start for entry in (await look.switch.get(f"/_sandbox/requests?{query}")).json()]

    assert await numbers(f"after={start + 1}&limit=2") == [2, 3]
    assert await numbers("path=/accounts/") == [5]
    assert await numbers("method=post") == []
    await look.switch.delete("/_sandbox/requests")
    await look.api.get("/accounts")
    assert await numbers("") == [6]


def test_logs_forget_the_oldest_and_go_on_counting() -> None:
    log: BoundedLog[int] = BoundedLog(3)
    for _ in range(5):
        log.append(lambda n: n)
    assert log.after(0, 10) == [3, 4, 5]
    assert (log.get(2), log.get(3)) == (None, 3)
    log.clear()
    assert log.append(lambda n: n) == 6


async def test_tests_may_look_on(look: Look) -> None:
    seen: list[tuple[str, str]] = []
    look.project.requests.hook = lambda method, path: seen.append((method, path))
    await look.api.get("/accounts")
    await look.switch.get("/_sandbox/requests")
    assert seen == [("GET", "/accounts")]
