"""What the broker's client keeps and follows: no cookies between callers, and no redirect anywhere."""

import pytest

from tests.support.world import World

pytestmark = pytest.mark.anyio


async def test_a_cookie_of_one_answer_is_sent_with_no_other_call(world: World) -> None:
    await world.switch(
        "POST",
        "/faults",
        {
            "method": "POST",
            "path": "/connect_sessions",
            "times": 1,
            "status": 500,
            "headers": {"set-cookie": "session=of-alice; Path=/"},
            "body": {},
        },
    )
    for user in ("alice", "bob", "alice"):
        answer = await world.broker.post("/v1/connect-sessions", headers=world.as_user(user))
        assert answer.status_code == 201
        assert "set-cookie" not in answer.headers
    sent = await world.received("POST", "/connect_sessions")
    assert len(sent) == 4
    assert all("cookie" not in row["headers"] for row in sent)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed_and_the_key_goes_nowhere(world: World, status: int) -> None:
    await world.switch(
        "POST",
        "/faults",
        {
            "method": "POST",
            "path": "/connect_sessions",
            "times": 9,
            "status": status,
            "headers": {"location": f"{world.issuer}/stolen"},
            "body": {},
        },
    )
    answer = await world.broker.post("/v1/connect-sessions", headers=world.as_user())
    assert answer.status_code == 502
    assert "location" not in answer.headers
    assert len(await world.received("POST", "/connect_sessions")) == 1
    assert not [entry for entry in world.provider.requests.entries.after(0, 1000) if "stolen" in str(entry)]
