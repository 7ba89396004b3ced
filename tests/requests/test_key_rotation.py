"""The StackOne API key is changed under load: a second key, a replica that has it, then the end of the first."""

import httpx2
import pytest
from pydantic import SecretStr

from app.main import create_app
from app.runtime import Externals
from sandbox.serving import bind, url_of
from tests.support.serving import serving_all
from tests.support.wires import PlainWire
from tests.support.world import API_KEY, SANDBOX_KEY, World, open_world

pytestmark = pytest.mark.anyio

NEW_KEY = "demo-canary-next-key-0123456789"


async def change(world: World, **body: str) -> None:
    answer = await world.stackone.post("/_sandbox/api-key", headers={"x-sandbox-key": SANDBOX_KEY}, json=body)
    assert answer.status_code == 200


async def test_a_key_is_rotated_without_a_refused_request(database_url: str) -> None:
    async with open_world(database_url, webhooks=False) as world:
        next_settings = world.settings.model_copy(
            update={"stackone": world.settings.stackone.model_copy(update={"api_key": SecretStr(NEW_KEY)})}
        )
        externals = Externals(stackone_transport=PlainWire(), identity_transport=PlainWire())
        bound = bind(0)
        async with (
            serving_all((create_app(next_settings, externals), bound)),
            httpx2.AsyncClient(base_url=url_of(bound)) as next_replica,
        ):

            async def mint(replica: httpx2.AsyncClient, user: str) -> int:
                answer = await replica.post("/v1/connect-sessions", headers=world.as_user(user), json={})
                return answer.status_code

            # The order matters: a replica with a key that StackOne does not know yet serves nobody.
            assert (await mint(world.broker, "alice"), await mint(next_replica, "bob")) == (201, 502)
            await change(world, key=API_KEY, second_key=NEW_KEY)
            assert (await mint(world.broker, "alice"), await mint(next_replica, "bob")) == (201, 201)
            await change(world, key=NEW_KEY)
            assert (await mint(world.broker, "alice"), await mint(next_replica, "bob")) == (502, 201)
