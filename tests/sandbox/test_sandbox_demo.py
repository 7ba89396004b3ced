"""`broker-demo`: its parts with a stand-in for the broker, and once with the real one."""

import asyncio
import json
import os
import signal
import socket
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest

from sandbox.launch.broker import Broker
from sandbox.launch.environment import broker_environment
from sandbox.launch.externals import externals
from sandbox.launch.options import DemoError, DemoOptions
from sandbox.launch.ports import (
    BROKER_PORT,
    METRICS_PORT,
    PAGE_PORT,
    PROVIDER_PORT,
    STACKONE_PORT,
    Ports,
    claim_ports,
)
from sandbox.launch.secrets_file import demo_secrets
from sandbox.launch.state_folder import claimed_folder
from sandbox.launch.summary import Summary
from sandbox.serving import bind, url_of

pytestmark = pytest.mark.anyio

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
# Three programs start one after the other, and the machine may be busy.
_START_SECONDS = 120


def options(directory: Path, **changes: Any) -> DemoOptions:
    return DemoOptions(**{"directory": directory, "free_ports": True, "as_json": True, **changes})


def fake_broker(tmp_path: Path, ports: Ports, fake: str = "", **patience: float) -> Broker:
    environment = {**os.environ, "BROKER_HTTP__PORT": str(ports.broker), "PYTHON_FAKE": fake}
    return Broker(
        environment=environment,
        log=tmp_path / "broker.log",
        command=(sys.executable, str(HERE / "fake_broker.py")),
        **patience,
    )


@pytest.fixture
def ports(tmp_path: Path) -> Iterator[Ports]:
    claimed = claim_ports(options(tmp_path))
    yield claimed
    claimed.close()


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def test_secrets_are_made_once_and_for_this_user_only(tmp_path: Path) -> None:
    first = demo_secrets(tmp_path)
    assert demo_secrets(tmp_path) == first
    assert stat.S_IMODE((tmp_path / "secrets.json").stat().st_mode) == 0o600
    values = json.loads((tmp_path / "secrets.json").read_text()).values()
    assert all(value.startswith("demo-") and len(value) > 30 for value in values)
    assert len(set(values)) == 6


def test_a_folder_serves_one_demo_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "state"
    with claimed_folder(folder):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        with pytest.raises(DemoError, match="Another broker-demo"), claimed_folder(folder):
            pytest.fail("it is taken")
    with claimed_folder(folder):
        pass


def test_a_folder_that_cannot_be_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DemoError, match=r"cannot be used.*--dir"), claimed_folder(tmp_path / "file" / "state"):
        pytest.fail("it cannot be")


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"stackone_api_key": "v1.eu1.real"}'])
def test_unreadable_secrets_come_with_a_remedy(tmp_path: Path, content: str) -> None:
    (tmp_path / "secrets.json").write_text(content)
    with pytest.raises(DemoError, match="--dir"):
        demo_secrets(tmp_path)


def test_real_secrets_are_never_taken_for_demo_ones(tmp_path: Path) -> None:
    names = ("stackone_api_key", "webhook_secret", "pepper", "sandbox_key")
    (tmp_path / "secrets.json").write_text(json.dumps(dict.fromkeys(names, "v1.eu1.real")))
    with pytest.raises(DemoError, match="something else"):
        demo_secrets(tmp_path)


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("port", "--port"),
        ("sandbox_port", "--sandbox-port"),
        ("page_port", "--page-port"),
        ("metrics_port", "--metrics-port"),
        ("provider_port", "--provider-port"),
    ],
)
def test_a_taken_port_names_its_option(tmp_path: Path, name: str, option: str) -> None:
    with bind(0) as taken:
        number = taken.getsockname()[1]
        with pytest.raises(DemoError, match=f"{number} is not free.*{option} "):
            claim_ports(options(tmp_path, **{name: number}))


DEFAULTS = {
    "--port": BROKER_PORT,
    "--sandbox-port": STACKONE_PORT,
    "--page-port": PAGE_PORT,
    "--metrics-port": METRICS_PORT,
    "--provider-port": PROVIDER_PORT,
}


@pytest.fixture
def taken_defaults() -> Iterator[None]:
    """Take every default port that is not taken already."""
    with ExitStack() as taken:
        for number in DEFAULTS.values():
            with suppress(OSError):
                taken.enter_context(bind(number))
        yield


@pytest.mark.usefixtures("taken_defaults")
def test_a_taken_default_port_is_replaced_and_said_so(tmp_path: Path) -> None:
    claimed = claim_ports(options(tmp_path, free_ports=False))
    used = {
        "--sandbox-port": claimed.stackone.getsockname()[1],
        "--page-port": claimed.identity.getsockname()[1],
        "--provider-port": claimed.provider.getsockname()[1],
        "--port": claimed.broker,
        "--metrics-port": claimed.metrics,
    }
    claimed.close()
    said = [f"Port {DEFAULTS[option]} ({option}) is taken: using {used[option]} instead." for option in used]
    assert claimed.notes == said
    assert len({*used.values(), *DEFAULTS.values()}) == 10


def test_free_ports_are_free_but_for_the_ones_that_are_given(tmp_path: Path) -> None:
    with bind(0) as probe:
        number = probe.getsockname()[1]
    claimed = claim_ports(options(tmp_path, page_port=number))
    claimed.close()
    assert claimed.identity.fileno() == -1
    assert claimed.notes == []
    assert not {claimed.broker, claimed.metrics} & set(DEFAULTS.values())


def test_two_options_cannot_name_one_port(tmp_path: Path) -> None:
    with bind(0) as probe:
        number = probe.getsockname()[1]
    with pytest.raises(DemoError, match="not free"):
        claim_ports(options(tmp_path, port=number, sandbox_port=number))


def test_the_brokers_own_two_ports_cannot_be_one(tmp_path: Path) -> None:
    with bind(0) as probe:
        number = probe.getsockname()[1]
    with pytest.raises(DemoError, match=f"{number} is not free.*--metrics-port"):
        claim_ports(options(tmp_path, port=number, metrics_port=number))


@pytest.mark.skipif(sys.platform != "linux", reason="ports are kept on Linux only")
def test_the_brokers_port_is_kept_for_it_while_it_migrates(ports: Ports) -> None:
    with socket.socket() as another, pytest.raises(OSError, match="in use"):
        another.bind(("127.0.0.1", ports.broker))
    with bind(ports.broker) as brokers:
        assert brokers.getsockname()[1] == ports.broker
    ports.close()
    with socket.socket() as another:
        another.bind(("127.0.0.1", ports.broker))


@pytest.mark.parametrize("number", [-1, 65_536])
def test_impossible_ports_are_refused(tmp_path: Path, number: int) -> None:
    with pytest.raises(DemoError, match="--port"):
        claim_ports(options(tmp_path, port=number))


def test_no_setting_of_another_broker_leaks_in(tmp_path: Path, ports: Ports) -> None:
    inherited = {"PATH": "/bin", "BROKER_STACKONE__API_KEY": "v1.eu1.real", "AWS_SECRET_ACCESS_KEY": "x", "HOME": "/h"}
    given = options(tmp_path, broker_env=("BROKER_SYNC__ENABLED=false", "BROKER_LIMITS__X=a=b"))
    made = broker_environment(given, ports, demo_secrets(tmp_path), inherited)
    assert made["PATH"] == "/bin"
    assert made["BROKER_STACKONE__API_KEY"].startswith("demo-")
    assert "AWS_SECRET_ACCESS_KEY" not in made
    assert (made["BROKER_SYNC__ENABLED"], made["BROKER_LIMITS__X"]) == ("false", "a=b")
    assert made["BROKER_DATABASE__URL"] == f"sqlite:///{tmp_path}/broker.db"
    (issuer,) = json.loads(made["BROKER_IDENTITY__ISSUERS"])
    assert json.loads(made["BROKER_HTTP__ALLOWED_ORIGINS"]) == [issuer["issuer"]]


@pytest.mark.parametrize("given", ["BROKER_X", "PATH=/tmp", "=x"])
def test_malformed_settings_are_refused(tmp_path: Path, ports: Ports, given: str) -> None:
    with pytest.raises(DemoError, match="--broker-env"):
        broker_environment(options(tmp_path, broker_env=(given,)), ports, demo_secrets(tmp_path), {})


async def test_the_stand_in_runs_and_is_stopped(tmp_path: Path, ports: Ports) -> None:
    broker = fake_broker(tmp_path, ports)
    await broker.migrate()
    assert await broker.create_service_key() == "sk_fake"
    async with broker.serving(ports.broker_url) as child, httpx2.AsyncClient(trust_env=False) as client:
        assert (await client.get(ports.broker_url)).status_code == 200
    assert child.returncode == -signal.SIGTERM
    assert "serving" in broker.log.read_text()


async def test_a_broker_that_does_not_listen_is_killed(tmp_path: Path, ports: Ports) -> None:
    async with fake_broker(tmp_path, ports, "deaf", stop_seconds=0.1).serving(ports.broker_url) as child:
        pass
    assert child.returncode == -signal.SIGKILL


async def test_a_second_ctrl_c_leaves_no_orphan(tmp_path: Path, ports: Ports) -> None:
    children = []

    async def hold() -> None:
        async with fake_broker(tmp_path, ports, "deaf").serving(ports.broker_url) as child:
            children.append(child)
            up.set()
            await asyncio.Event().wait()

    up = asyncio.Event()
    holding = asyncio.create_task(hold())
    await up.wait()
    holding.cancel()
    await asyncio.sleep(0)
    holding.cancel()
    await asyncio.gather(holding, return_exceptions=True)
    assert children[0].returncode == -signal.SIGKILL


@pytest.mark.parametrize("step", ["migrate", "service-keys"])
async def test_a_failed_step_shows_its_output_and_a_remedy(tmp_path: Path, ports: Ports, step: str) -> None:
    broker = fake_broker(tmp_path, ports, f"{step} fails")
    with pytest.raises(DemoError, match=r"exit code 3(.|\n)*this is what went wrong(.|\n)*start again"):
        await (broker.migrate() if step == "migrate" else broker.create_service_key())


async def test_a_missing_key_is_reported(tmp_path: Path, ports: Ports) -> None:
    with pytest.raises(DemoError, match="printed no key"):
        await fake_broker(tmp_path, ports, "no key").create_service_key()


async def test_a_broker_that_dies_at_the_start_is_reported_with_its_last_words(tmp_path: Path, ports: Ports) -> None:
    with pytest.raises(DemoError, match=r"exit code 3(.|\n)*this is what went wrong(.|\n)*broker.log"):
        async with fake_broker(tmp_path, ports, "serve fails").serving(ports.broker_url):
            pytest.fail("it is not ready")


async def test_a_broker_that_never_gets_ready_is_reported_and_stopped(tmp_path: Path, ports: Ports) -> None:
    with pytest.raises(DemoError, match="did not become ready"):
        async with fake_broker(tmp_path, ports, "never ready", ready_seconds=0.6).serving(ports.broker_url):
            pytest.fail("it is not ready")
    assert is_free(ports.broker)


async def test_externals_serve_remember_and_go(tmp_path: Path, ports: Ports) -> None:
    secrets = demo_secrets(tmp_path)
    saved = tmp_path / "stackone.json"
    page = tmp_path / "dist"
    key = {"x-sandbox-key": secrets.sandbox_key}
    async with externals(ports, secrets, saved, page) as up, httpx2.AsyncClient(trust_env=False) as client:
        summary = Summary(
            ports=ports,
            secrets=secrets,
            identity=up.identity,
            has_page=up.has_page,
            service_key="sk_fake",
            database_url="postgresql://user:hunter2@localhost/broker",
            log="x",
        )
        told = json.loads(summary.to_json())
        made = await client.post(f"{told['stackone']}/_sandbox/accounts", json={}, headers=key)
        assert made.status_code == 201
        assert (await client.get(f"{told['idp']}/jwks.json")).status_code == 200
        assert (await client.get(f"{told['provider']}/authorize")).status_code == 400
        assert "not built" in summary.to_text()
        assert "hunter2" not in summary.to_text()
        assert summary.to_text().endswith("\nready")
        page.mkdir()
        (page / "index.html").write_text("page")
        assert up.has_page
        assert (await client.get(told["idp"])).text == "page"
    again = claim_ports(options(tmp_path))
    async with externals(again, secrets, saved, page) as up:
        assert [account.id for account in up.project.accounts] == [made.json()["id"]]
    again.close()


async def test_an_answer_does_not_wait_for_an_acknowledgement(tmp_path: Path, ports: Ports) -> None:
    secrets = demo_secrets(tmp_path)
    url = f"{url_of(ports.stackone)}/_sandbox/accounts"

    def ask() -> float:
        with httpx2.Client(trust_env=False, headers={"x-sandbox-key": secrets.sandbox_key}) as client:
            took = []
            for _ in range(20):
                asked = time.perf_counter()
                assert client.get(url).is_success
                took.append(time.perf_counter() - asked)
        return min(took)

    async with externals(ports, secrets, tmp_path / "stackone.json"):
        # Each took 40 ms, busy machine or not, while answers left in two parts and the second waited.
        assert await asyncio.to_thread(ask) < 0.03


async def start_demo(tmp_path: Path, *arguments: str) -> asyncio.subprocess.Process:
    code = "from sandbox.demo import main; main()"
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        code,
        "--dir",
        str(tmp_path / "state"),
        *arguments,
        cwd=ROOT,
        env={**os.environ, "BROKER_ENVIRONMENT": "production", "BROKER_STACKONE__API_KEY": "v1.eu1.inherited"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


@pytest.mark.timeout(2 * _START_SECONDS)
async def test_a_demo_that_is_killed_leaves_no_broker_behind(tmp_path: Path) -> None:
    demo = await start_demo(tmp_path, "--free-ports", "--json")
    try:
        assert demo.stdout is not None
        async with asyncio.timeout(_START_SECONDS):
            told = json.loads(await demo.stdout.readline())
            port = int(told["broker"].rpartition(":")[2])
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
            demo.kill()
            # The connection is kept alive until the broker ends it.
            await reader.read()
            writer.close()
    finally:
        if demo.returncode is None:
            demo.kill()
        await demo.communicate()
    assert is_free(port)


@pytest.mark.timeout(2 * _START_SECONDS)
async def test_the_real_broker_from_start_to_stop(tmp_path: Path) -> None:
    demo = await start_demo(tmp_path, "--free-ports", "--json")
    try:
        assert demo.stdout is not None
        async with asyncio.timeout(_START_SECONDS):
            line = await demo.stdout.readline()
        told = json.loads(line)
        assert told["page"] is None or told["page"] == told["idp"]
        assert {user: entry["owner_id"] for user, entry in told["users"].items()} == {
            "alice": "org_acme",
            "bob": "org_globex",
            "carol": "org_acme",
        }
        async with httpx2.AsyncClient(trust_env=False, timeout=10) as client:
            await try_everything(client, told)
    finally:
        if demo.returncode is None:
            demo.send_signal(signal.SIGTERM)
        rest, errors = await demo.communicate()
    assert (demo.returncode, rest, errors) == (0, b"", b"")
    assert is_free(int(told["broker"].rpartition(":")[2]))
    state = tmp_path / "state"
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in state.iterdir())


async def try_everything(client: httpx2.AsyncClient, told: dict[str, Any]) -> None:
    alice = {"authorization": f"Bearer {told['users']['alice']['token']}"}
    minted = await client.post(f"{told['broker']}/v1/connect-sessions", json={"provider": "workday"}, headers=alice)
    assert minted.status_code == 201, minted.text
    assert (await client.get(told["metrics"])).status_code == 200
    key = {"x-sandbox-key": told["sandbox_key"]}
    owner = {"provider": "workday", "origin_owner_id": "org_acme", "origin_owner_name": "Acme Inc"}
    await client.post(f"{told['stackone']}/_sandbox/accounts", json=owner, headers=key)
    assert (await client.post(f"{told['stackone']}/_sandbox/deliveries/settle", headers=key)).json()["settled"]
    (delivery,) = (await client.get(f"{told['stackone']}/_sandbox/deliveries", headers=key)).json()
    assert (delivery["state"], delivery["status"]) == ("delivered", 200)


@pytest.mark.usefixtures("taken_defaults")
@pytest.mark.timeout(2 * _START_SECONDS)
async def test_the_demo_runs_where_its_default_ports_are_taken(tmp_path: Path) -> None:
    demo = await start_demo(tmp_path, "--json")
    try:
        assert demo.stdout is not None
        async with asyncio.timeout(_START_SECONDS):
            told = json.loads(await demo.stdout.readline())
        async with httpx2.AsyncClient(trust_env=False, timeout=10) as client:
            assert (await client.get(f"{told['broker']}/livez")).status_code == 200
    finally:
        if demo.returncode is None:
            demo.send_signal(signal.SIGTERM)
        _rest, errors = await demo.communicate()
    assert demo.returncode == 0
    lines = errors.decode().splitlines()
    assert len(lines) == len(DEFAULTS)
    assert f"broker-demo: Port 8000 (--port) is taken: using {told['broker'].rpartition(':')[2]} instead." in lines


@pytest.mark.timeout(2 * _START_SECONDS)
async def test_the_command_says_what_to_do_and_fails(tmp_path: Path) -> None:
    with bind(0) as taken:
        demo = await start_demo(tmp_path, "--free-ports", "--provider-port", str(taken.getsockname()[1]), "--json")
        async with asyncio.timeout(_START_SECONDS):
            out, errors = await demo.communicate()
    assert (demo.returncode, out) == (1, b"")
    assert b"broker-demo: Port" in errors
    assert b"--provider-port" in errors
