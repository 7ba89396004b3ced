"""What the broker talks to, in one process: StackOne, a provider's page, the identity provider with the demo's page."""

import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from sandbox.identity import IdentityConfig, IdentityProvider, create_identity_provider
from sandbox.launch.environment import AUDIENCE, PROJECT_ID
from sandbox.launch.ports import Ports
from sandbox.launch.secrets_file import DemoSecrets
from sandbox.provider import Provider, create_provider
from sandbox.serving import serving, url_of
from sandbox.stackone import Project, StackOneConfig, create_stackone

_PAGE_DIR = Path(__file__).resolve().parents[2] / "demo" / "dist"
_WEBHOOK_PATH = "/v1/webhooks/stackone"


@dataclass(frozen=True, kw_only=True)
class Externals:
    """The externals that are running."""

    project: Project
    identity: IdentityProvider
    page_dir: Path

    @property
    def has_page(self) -> bool:
        """Tell whether the page has been built."""
        return (self.page_dir / "index.html").is_file()


@contextlib.asynccontextmanager
async def externals(
    ports: Ports, secrets: DemoSecrets, accounts_file: Path, page_dir: Path = _PAGE_DIR
) -> AsyncIterator[Externals]:
    """Serve all externals while the block runs."""
    stackone_url, identity_url = url_of(ports.stackone), url_of(ports.identity)
    provider = Provider(registered_origin=stackone_url)
    config = StackOneConfig(
        api_key=secrets.stackone_api_key,
        webhook_secret=secrets.webhook_secret,
        sandbox_key=secrets.sandbox_key,
        webhook_url=ports.broker_url + _WEBHOOK_PATH,
        project_id=PROJECT_ID,
        own_url=stackone_url,
        provider_url=url_of(ports.provider),
        web_component=str(page_dir / "hub" / "webcomponent.js"),
    )
    project = Project(config, provider=provider)
    _restore(project, accounts_file)
    identity = IdentityProvider(
        IdentityConfig(
            own_url=identity_url,
            broker_url=ports.broker_url,
            stackone_url=stackone_url,
            audience=AUDIENCE,
            sandbox_key=secrets.sandbox_key,
            page_dir=page_dir,
        )
    )
    async with contextlib.AsyncExitStack() as up:
        up.callback(_save, project, accounts_file)
        await up.enter_async_context(serving(create_stackone(project), ports.stackone))
        await up.enter_async_context(serving(create_identity_provider(identity), ports.identity))
        await up.enter_async_context(serving(create_provider(provider), ports.provider))
        yield Externals(project=project, identity=identity, page_dir=page_dir)


def _save(project: Project, path: Path) -> None:
    # The broker's database outlives the demo: an emulator without these accounts would contradict it.
    draft = path.with_suffix(".new")
    draft.write_text(json.dumps(project.accounts.dump(), indent=1))
    draft.replace(path)


def _restore(project: Project, path: Path) -> None:
    with contextlib.suppress(OSError, ValueError, TypeError):
        project.accounts.restore(json.loads(path.read_text()))
