"""A stranger's first half hour: the blocks of docs/operations.md, in their order and in one shell.

Around them stands what a stranger has: two releases to install, an empty PostgreSQL, a project at StackOne and an
identity provider (both the sandbox's), and a proxy before the two replicas. What happens between two blocks
(an event at StackOne, users who go on working) is done here, and what each block promises is looked at.
"""

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import httpx2
import pytest

from sandbox.identity.application import create_identity_provider
from sandbox.identity.provider import USERS, IdentityConfig, IdentityProvider, TokenOrder
from sandbox.serving import bind, reserved, url_of
from sandbox.stackone.accounts import LinkOrder
from sandbox.stackone.application import create_stackone
from sandbox.stackone.project import Project, StackOneConfig
from sandbox.stackone.webhooks import WebhookChange
from tests.checks.pages import ROOT
from tests.neighbours.conftest import program
from tests.neighbours.postgresql import ROLE, OwnPostgresql
from tests.neighbours.proxies import in_front_of
from tests.support.serving import serving_all
from tests.support.waiting import eventually

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(3600)]

PAGE = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```bash ([\w-]+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
LAST_RELEASE = (ROOT / "migrations/LAST_RELEASE").read_text(encoding="utf-8").strip()
# What a busy machine may take for one block: the longest of them installs a release.
_PATIENCE = 900
_MANY = 10_000
API_KEY = "half-an-hour-of-somebody-8f2c1d"
SECRETS = ("whsec-of-the-first-minutes", "whsec-of-the-last-minutes")
SANDBOX_KEY = "switches-of-this-test"
IMPORTED = "45355976281015164504"  # stands in the page's owners.csv


class Shell:
    """One bash, which is given block after block and ends at the first command that fails."""

    def __init__(self, process: asyncio.subprocess.Process, folder: Path) -> None:
        """Talk to a bash that has been started in a folder."""
        self._process = process
        self._folder = folder

    async def run(self, code: str) -> str:
        """Run a block as it stands; return what it wrote."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        script = self._folder / "block.sh"
        script.write_text(code)
        # No command of a block may read the blocks that follow.
        self._process.stdin.write(f". '{script}' < /dev/null 2>&1; printf '\\n%s\\n' '=== done'\n".encode())
        await self._process.stdin.drain()
        written: list[str] = []
        async with asyncio.timeout(_PATIENCE):
            while (line := (await self._process.stdout.readline()).decode()) != "=== done\n":
                assert line, f"{code}\n{''.join(written)}\n{self._logs()}"
                written.append(line)
        return "".join(written)

    def _logs(self) -> str:
        return "\n".join(f"{log.name}: {log.read_text()[-2000:]}" for log in self._folder.rglob("broker-*.log"))


@asynccontextmanager
async def opened_shell(folder: Path, environment: Mapping[str, str]) -> AsyncIterator[Shell]:
    """Start a shell in an empty folder; at the end, end whatever was started from it."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("BROKER_")}
    process = await asyncio.create_subprocess_exec(
        program("bash"),
        "-euo",
        "pipefail",
        cwd=folder,
        env={**inherited, **environment},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield Shell(process, folder)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        await process.wait()


def code_of(commit: str, folder: Path) -> Path:
    """Put the tree of a commit into a folder."""
    archive = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True, check=False)
    assert archive.returncode == 0, f"this clone lacks {commit}: git fetch --unshallow"
    with tarfile.open(fileobj=BytesIO(archive.stdout)) as tree:
        tree.extractall(folder, filter="data")
    return folder


@dataclass(frozen=True)
class Releases:
    """What a stranger finds at the package index."""

    older: str
    newer: str
    environment: Mapping[str, str]


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> Releases:
    """Build the last release and this one; what they need comes in the versions of the lock file."""
    shelf = tmp_path_factory.mktemp("index")
    versions = []
    for tree in (code_of(LAST_RELEASE, tmp_path_factory.mktemp("older")), ROOT):
        known = set(shelf.iterdir())
        command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(shelf)]
        subprocess.run(command, cwd=tree, check=True, capture_output=True, timeout=600)
        [wheel] = set(shelf.iterdir()) - known
        versions.append(wheel.name.split("-")[1])
    # This one holds what the last release needs as well.
    lock = (ROOT / "requirements-dev.lock").read_text(encoding="utf-8")
    pinned = re.findall(r"^([\w.-]+==[^\\\n]+)", lock, re.MULTILINE)
    constraints = shelf / "constraints.txt"
    constraints.write_text("\n".join(pinned))
    index = " ".join(filter(None, (os.environ.get("PIP_FIND_LINKS"), str(shelf))))
    environment = {
        "PIP_FIND_LINKS": index,
        "PIP_CONSTRAINT": str(constraints),
        "PIP_NO_COMPILE": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
    older, newer = versions
    return Releases(older, newer, environment)


@dataclass
class Load:
    """Users who go on working through the proxy, whatever is done to the replicas behind it."""

    proxy: httpx2.AsyncClient
    users: Sequence[Mapping[str, str]]
    done: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    _working: list[asyncio.Task[None]] = field(default_factory=list)

    def begin(self) -> None:
        """Let each user work."""
        self._working = [asyncio.create_task(self._work(user)) for user in self.users]

    async def more(self) -> None:
        """Wait until a good deal more has been asked."""
        enough = self.done + 100

        async def asked() -> bool:
            return self.done >= enough

        await eventually(asked, within=_PATIENCE)

    async def end(self) -> None:
        """Let them stop, each after the answer that it waits for."""
        working, self._working = self._working, []
        await asyncio.gather(*working)

    async def _work(self, user: Mapping[str, str]) -> None:
        while self._working:
            # Nothing here is about how much the broker bears: tests/neighbours/test_proxies.py asks as fast as it can.
            await asyncio.sleep(0.05)
            try:
                if self.done % 3 == 0:
                    body = {"provider": "bamboohr"}
                    answer = await self.proxy.post("/v1/connect-sessions", headers=user, json=body)
                else:
                    answer = await self.proxy.get("/v1/linked-accounts", headers=user)
                if not answer.is_success:
                    self.failed[f"{answer.status_code} {answer.text[:200]}"] += 1
            except httpx2.HTTPError as error:
                self.failed[repr(error)] += 1
            self.done += 1


@pytest.fixture
def postgresql() -> Iterator[OwnPostgresql]:
    """Start a PostgreSQL whose programs are as old as the machine's pg_dump."""
    directory = Path(tempfile.mkdtemp(prefix="half-hour-"))
    directory.chmod(0o755)
    server = OwnPostgresql(directory)
    yield server
    server.stop()
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="module")
def ports() -> Iterator[tuple[int, int]]:
    """Keep two ports, and for the metrics those a thousand above them, as the page has it."""
    with ExitStack() as held:
        found: list[int] = []
        for port in range(20_001, 60_000):
            with ExitStack() as pair, suppress(OSError):
                pair.enter_context(reserved(port))
                pair.enter_context(reserved(port + 1000))
                held.enter_context(pair.pop_all())
                found.append(port)
            if len(found) == 2:
                break
        yield found[0], found[1]


@dataclass
class Walk:
    """What a test of the page may touch."""

    shell: Shell
    project: Project
    postgresql: OwnPostgresql
    ports: tuple[int, int]
    values: dict[str, str]
    older: str
    newer: str
    done: list[str] = field(default_factory=list)

    async def through(self, last: str) -> str:
        """Run the page's blocks up to one; return what that one wrote."""
        written = ""
        while not self.done or self.done[-1] != last:
            assert len(self.done) < len(BLOCKS), f"the page has no block {last} after {self.done}"
            name, code = BLOCKS[len(self.done)]
            if name == "values":
                code = "".join(f"{value}='{self.values.pop(value)}'\n" for value in names(code))
            written = await self.shell.run(code)
            self.done.append(name)
        return written

    async def key(self) -> Mapping[str, str]:
        """Return the header of the page's own service key."""
        [key] = (await self.shell.run("echo $KEY")).split()
        return {"authorization": f"Bearer {key}"}

    async def asked(self, path: str, headers: Mapping[str, str], *, of: int = 0) -> httpx2.Response:
        """Ask one of the replicas."""
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{self.ports[of]}", timeout=30) as client:
            return await client.get(path, headers=dict(headers))

    async def accounts(self, headers: Mapping[str, str], owner: str = "org_acme", *, of: int = 0) -> set[str]:
        """Return the ids that a backend sees of an owner."""
        answer = await self.asked(f"/v1/owners/{owner}/linked-accounts", headers, of=of)
        assert answer.status_code == 200, answer.text
        return {account["account_id"] for account in answer.json()["data"]}

    async def comes_to_have(self, account_id: str, headers: Mapping[str, str]) -> None:
        """Wait until a backend sees an account."""

        async def seen() -> bool:
            return account_id in await self.accounts(headers)

        await eventually(seen, within=_PATIENCE)

    async def versions(self) -> list[str]:
        """Say which release each replica is."""
        found = []
        for port in self.ports:
            async with httpx2.AsyncClient(timeout=30) as client:
                text = (await client.get(f"http://127.0.0.1:{port + 1000}/metrics")).text
            told = re.search(r'^broker_build_info\{.*version="([^"]+)"', text, re.MULTILINE)
            found.append(told[1] if told else "older than its own metric")
        return found

    def link(self, account_id: str | None = None, owner: str = "org_acme") -> str:
        """Link an account at StackOne, as if made elsewhere; return its id."""
        order = LinkOrder(
            provider="bamboohr",
            origin_owner_id=owner,
            origin_owner_name="Acme Inc",
            multiple=True,
            fixed_id=account_id,
        )
        return self.project.accounts.link(order).id

    def at_stackone(self) -> set[str]:
        """Return the ids of what the page's owner has at StackOne."""
        return {account.id for account in self.project.accounts if account.origin_owner_id == "org_acme"}

    async def answer_to_an_event(self, signed_with: str) -> int | None:
        """Have something happen at StackOne, which signs with a secret; return how the broker answers the event."""
        self.project.webhooks.change(WebhookChange(secret=signed_with))
        before = len(self.project.webhooks.log.after(0, _MANY))
        self.link()
        assert await self.project.webhooks.settle(_PATIENCE)
        *_, last = self.project.webhooks.log.after(before, _MANY)
        return last.answers[-1].status


def names(code: str) -> list[str]:
    """Return the variables that a block of values sets."""
    return re.findall(r"^(\w+)=", code, re.MULTILINE)


@asynccontextmanager
async def opened_walk(
    releases: Releases, postgresql: OwnPostgresql, ports: tuple[int, int], folder: Path
) -> AsyncIterator[tuple[Walk, IdentityProvider]]:
    """Give a stranger what the page takes for granted."""
    for name in ("first", "restored", "moved"):
        postgresql.sql(f"CREATE DATABASE {name} OWNER {ROLE}")

    stackone, identity = bind(0), bind(0)
    stackone_url, issuer = url_of(stackone), url_of(identity)
    async with AsyncExitStack() as up:
        config = StackOneConfig(
            api_key=API_KEY, webhook_secret=SECRETS[0], sandbox_key=SANDBOX_KEY, own_url=stackone_url
        )
        project = Project(config)
        provider = IdentityProvider(IdentityConfig(own_url=issuer, sandbox_key=SANDBOX_KEY))
        await up.enter_async_context(
            serving_all((create_stackone(project), stackone), (create_identity_provider(provider), identity))
        )
        environment = {
            **releases.environment,
            # The last release trusts the system's authorities alone, so that neither can be behind TLS.
            "BROKER_ENVIRONMENT": "development",
            "BROKER_STACKONE__BASE_URL": stackone_url,
            # Room for two releases' worth of users who do nothing else, and for a server of few connections.
            "BROKER_STACKONE__REQUESTS_PER_MINUTE": "100000",
            "BROKER_LIMITS__REQUESTS_PER_USER": "1000000/minute",
            "BROKER_LIMITS__REQUESTS_PER_OWNER": "1000000/minute",
            "BROKER_LIMITS__MINT_PER_USER": "1000000/minute",
            "BROKER_LIMITS__MINT_PER_OWNER": "1000000/minute",
            "BROKER_LIMITS__LIVE_SESSIONS_PER_OWNER": "1000000",
            "BROKER_DATABASE__POOL_SIZE": "4",
            "BROKER_DATABASE__POOL_OVERFLOW": "4",
        }
        token = provider.mint(TokenOrder(user=USERS["alice"]))
        values = {
            "VERSION": releases.older,
            "NEXT": releases.newer,
            "DATABASE_URL": postgresql.url(database="first"),
            "RESTORED_URL": postgresql.url(database="restored"),
            "POSTGRESQL_URL": postgresql.url(database="moved"),
            "SQLITE_URL": f"sqlite:///{folder}/small.db",
            "STACKONE_API_KEY": API_KEY,
            "WEBHOOK_SECRET": SECRETS[0],
            "NEXT_WEBHOOK_SECRET": SECRETS[1],
            "ISSUER": issuer,
            "USER_TOKEN": token,
            "FIRST": str(ports[0]),
            "SECOND": str(ports[1]),
        }
        shell = await up.enter_async_context(opened_shell(folder, environment))
        yield Walk(shell, project, postgresql, ports, values, releases.older, releases.newer), provider


def test_each_block_of_the_page_says_which_it_is() -> None:
    assert PAGE.count("```bash") == len(BLOCKS)


async def test_a_strangers_half_hour(
    releases: Releases,
    postgresql: OwnPostgresql,
    ports: tuple[int, int],
    tmp_path: Path,
) -> None:
    async with opened_walk(releases, postgresql, ports, tmp_path) as (walk, provider):
        # An empty PostgreSQL, and a token.
        session = json.loads(await walk.through("token"))
        assert session["mode"] == "create"
        assert session["token"]
        await walk.through("service-key")
        key = await walk.key()
        async with in_front_of(ports, "haproxy", program("haproxy"), tmp_path) as proxy:
            walk.project.webhooks.change(WebhookChange(url=f"{proxy.base_url}/v1/webhooks/stackone"))
            await walk.comes_to_have(walk.link(), key)
            assert "broken" not in await walk.through("doctor")

            await upgraded(walk, proxy, provider)

            walk.link(IMPORTED)
            await walk.through("import")
            await walk.comes_to_have(IMPORTED, key)

            await rotated(walk)
            await restored(walk, key)
        await moved(walk)
        assert [name for name, _ in BLOCKS] == walk.done
        assert walk.values == {}


async def upgraded(walk: Walk, proxy: httpx2.AsyncClient, provider: IdentityProvider) -> None:
    """Upgrade, roll one back and go forward again, while users go on working."""
    users = [{"authorization": f"Bearer {provider.mint(TokenOrder(user=user))}"} for user in USERS.values()]
    await walk.through("install-next")
    load = Load(proxy, users)
    load.begin()
    await load.more()
    schema = "SELECT version_num FROM alembic_version"
    before = walk.postgresql.sql(schema, database="first")
    await walk.through("upgrade")
    assert walk.postgresql.sql(schema, database="first") > before
    # The older release serves on the newer schema, and says that it does.
    await load.more()
    for of in (0, 1):
        assert "compatible" in (await walk.asked("/readyz", {}, of=of)).json()["checks"]["schema"]
    new, old = walk.newer, "older than its own metric"
    for last, releases in (
        ("replace-first", [new, old]),
        ("replace-second", [new, new]),
        ("roll-back", [old, new]),
        ("forward", [new, new]),
    ):
        await walk.through(last)
        assert await walk.versions() == releases
        for number in (0, 1):
            await seen_by(proxy, f"b{number}")
        await load.more()
    await load.end()
    assert load.failed == {}


async def seen_by(proxy: httpx2.AsyncClient, replica: str) -> None:
    """Wait until the proxy sends requests to a replica."""

    async def served() -> bool:
        answer = await proxy.get("/livez")
        return answer.is_success and answer.headers["x-served-by"] == replica

    await eventually(served, within=_PATIENCE)


async def rotated(walk: Walk) -> None:
    """Change the webhook's secret; StackOne's events are accepted at every moment, and in the end only the new ones."""
    await walk.through("accept-both")
    for secret in SECRETS:
        assert await walk.answer_to_an_event(secret) == 200
    signed = await walk.through("which-signs")
    for position in ("0", "1"):
        assert re.search(rf'position="{position}"\}} [1-9]', signed)
    await walk.through("accept-new")
    assert await walk.answer_to_an_event(SECRETS[0]) == 401
    assert await walk.answer_to_an_event(SECRETS[1]) == 200


async def restored(walk: Walk, key: Mapping[str, str]) -> None:
    """Back up, let things happen, and restore: the store is StackOne's."""
    gone = walk.link()
    await walk.comes_to_have(gone, key)
    await walk.through("back-up")
    walk.project.accounts.delete(gone)
    made = walk.link()
    await walk.comes_to_have(made, key)
    key_id = await walk.shell.run("broker service-keys list --json")
    await walk.shell.run(f"broker service-keys revoke {json.loads(key_id)[0]['key_id']}")
    await walk.through("restore")
    # With a key that was revoked after the backup, which is active again as the page says.
    assert await walk.accounts(key) == walk.at_stackone()
    assert made in walk.at_stackone()
    assert gone not in walk.at_stackone()


async def moved(walk: Walk) -> None:
    """Begin small with the older release, and move everything: what was linked, and whose the keys are."""
    small = f"BROKER_DATABASE__URL='{walk.values['SQLITE_URL']}' releases/{walk.older}/bin/broker"
    await walk.shell.run(
        f"{small} migrate; {small} sync; SMALL=$({small} service-keys create --name small --all-scopes --json)"
    )
    created = json.loads(await walk.shell.run('echo "$SMALL"'))
    await walk.through("moved")
    there = {"authorization": f"Bearer {created['key']}"}
    assert await walk.accounts(there) == walk.at_stackone()
