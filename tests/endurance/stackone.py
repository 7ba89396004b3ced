"""The StackOne emulator as a process of its own, so that the load does not wait for it.

    python -m tests.endurance.stackone PORT

It sends no webhooks: the load does, and knows which were acknowledged.
"""

import asyncio
import sys

from sandbox.serving import bind, serving, url_of
from sandbox.stackone.application import create_stackone
from sandbox.stackone.decisions import Decisions
from sandbox.stackone.project import Project, StackOneConfig
from tests.support.world import API_KEY, SANDBOX_KEY, WEBHOOK_SECRET


async def _serve(port: int) -> None:
    bound = bind(port)
    config = StackOneConfig(
        api_key=API_KEY,
        webhook_secret=WEBHOOK_SECRET,
        sandbox_key=SANDBOX_KEY,
        own_url=url_of(bound),
        decisions=Decisions(unknown_provider="accept", unknown_profile="accept"),
    )
    async with serving(create_stackone(Project(config)), bound):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1])))
