"""The composition: read by Docker Compose itself, and every command of ours in it started here.

Nothing here runs containers. What a service is given by Compose is given to the same program on this machine, with
loopback addresses in place of the services' names.
"""

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import httpx2
import pytest

from sandbox.launch import ports as demo_ports
from tests.checks.pages import ROOT
from tests.neighbours.conftest import program
from tests.neighbours.postgresql import PASSWORD, OwnPostgresql, pgbouncer
from tests.outside.test_deploy import known_settings, run
from tests.support.programs import free_port

pytestmark = pytest.mark.timeout(900)

COMPOSITION = ROOT / "docker-compose.yml"
EXAMPLE = ROOT / ".env.example"
BROKERS = ("broker-1", "broker-2")
START_SECONDS = 120.0
# What a reader of .env.example fills in; nothing in it leads off this machine.
ISSUER = {
    "issuer": "https://login.example.com/",
    "audiences": ["connect-broker"],
    "algorithms": ["HS256"],
    "secrets": ["a-secret-of-forty-letters-that-nobody-guesses"],
    "claims": {"owner_id": "org_id"},
}
FILLED = {
    "BROKER_STACKONE__API_KEY": "v1.us1.not-a-key-of-anybody",
    "BROKER_STACKONE__WEBHOOK_SECRETS": '["not a secret of anybody"]',
    "BROKER_IDENTITY__ISSUERS": json.dumps([ISSUER]),
    "BROKER_SERVICE_KEYS__PEPPER": "a-pepper-of-44-letters-that-nobody-guesses-ok",
    "POSTGRES_PASSWORD": PASSWORD,
}


class Compose:
    """Docker Compose, reading the composition in a folder of its own."""

    def __init__(self, program: Path, folder: Path) -> None:
        """Copy what it reads."""
        self._program = program
        self.folder = folder
        (folder / COMPOSITION.name).write_text(COMPOSITION.read_text())

    def fill(self, *, scale: bool = False) -> None:
        """Write .env as its example says, for the profile `scale` too."""
        text = EXAMPLE.read_text()
        if scale:
            before, heading, scaled = text.partition("# With docker compose --profile scale")
            assert heading
            text = before + heading + re.sub(r"^# (?=BROKER_)", "", scaled, flags=re.MULTILINE)
            text = text.replace(":PASSWORD@pgbouncer", f":{PASSWORD}@pgbouncer")
        for name, value in FILLED.items():
            text, number = re.subn(rf"^{name}='.*'$", f"{name}='{value}'", text, flags=re.MULTILINE)
            assert number == 1, name
        # No example: what would call StackOne.
        (self.folder / ".env").write_text(f"{text}\nBROKER_SYNC__ENABLED='false'\n")

    def config(self, *options: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        """Have it read everything."""
        command: list[str | Path] = [self._program, "--profile", "*", "config", *options]
        surroundings = {"PATH": os.environ["PATH"], "HOME": str(self.folder), **environment}
        return subprocess.run(
            command, cwd=self.folder, env=surroundings, capture_output=True, text=True, check=False, timeout=300
        )

    def read(self, **environment: str) -> dict[str, Any]:
        """Return the composition with everything filled in."""
        done = self.config("--format=json", **environment)
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))


@pytest.fixture
def compose(deploy_tools: Path, tmp_path: Path) -> Compose:
    """Give Docker Compose."""
    folder = tmp_path / "composition"
    folder.mkdir()
    return Compose(deploy_tools / "docker-compose", folder)


def test_it_is_what_the_specification_says(deploy_tools: Path) -> None:
    run(deploy_tools / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", COMPOSITION)


def test_it_asks_for_the_password_and_for_nothing_else(compose: Compose) -> None:
    asked = compose.config("--quiet")
    assert asked.returncode != 0
    assert "set POSTGRES_PASSWORD in .env" in asked.stderr
    # The demo needs no .env.
    services = compose.read(POSTGRES_PASSWORD="unused")["services"]
    assert "env_file" not in services["sandbox"]


def test_every_setting_of_env_reaches_both_replicas(compose: Compose) -> None:
    compose.fill()
    composition = compose.read()
    services = composition["services"]
    for name in BROKERS:
        environment = services[name]["environment"]
        assert {**FILLED, "BROKER_SYNC__ENABLED": "false"}.items() <= environment.items()
        assert {setting for setting in environment if setting.startswith("BROKER_")} <= known_settings()
        assert "ports" not in services[name]
        front, monitoring = (
            composition["networks"][each]["ipam"]["config"][0]["subnet"] for each in ("front", "monitoring")
        )
        # Whom the brokers believe about addresses, and who reads their metrics.
        assert json.loads(environment["BROKER_HTTP__TRUSTED_PROXIES"]) == [front]
        own = services[name]["networks"]["monitoring"]["ipv4_address"]
        assert environment["BROKER_METRICS__HOST"] == own
        assert ip_address(own) in ip_network(monitoring)
    # The migration is given no other secret than the database's.
    assert list(services["migrate"]["environment"]) == ["BROKER_DATABASE__URL"]
    assert [name for name, service in services.items() if "healthcheck" not in service] == ["migrate"]


def test_who_is_on_which_network_and_which_profile(compose: Compose) -> None:
    composition = compose.read(POSTGRES_PASSWORD="unused")
    services = composition["services"]
    joined = {
        network: sorted(name for name, service in services.items() if network in (service.get("networks") or {}))
        for network in composition["networks"]
    }
    assert joined == {
        "front": ["broker-1", "broker-2", "proxy"],
        "monitoring": ["broker-1", "broker-2", "prometheus"],
        "outside": ["proxy"],
        "back": ["broker-1", "broker-2", "database", "migrate", "pgbouncer", "redis"],
        "demo": ["sandbox"],
    }
    profiles = {name: service["profiles"] for name, service in services.items() if "profiles" in service}
    assert profiles == {
        "prometheus": ["monitoring"],
        "pgbouncer": ["scale"],
        "redis": ["scale"],
        "sandbox": ["demo"],
        "demo": ["demo"],
    }
    published = {port.get("host_ip") for service in services.values() for port in service.get("ports", ())}
    # Only the proxy's is open to others.
    assert published == {None, "127.0.0.1"}
    for name, service in services.items():
        if "build" in service:
            file = service["build"].get("dockerfile", "Dockerfile")
            assert (ROOT / file).is_file(), name
            assert service["read_only"], name
        else:
            assert re.search(r":v?\d", service["image"]), name
        for volume in service.get("volumes", ()):
            if volume["type"] == "bind":
                assert (ROOT / Path(volume["source"]).relative_to(compose.folder)).is_file(), name


def test_the_documents_name_services_that_there_are(compose: Compose) -> None:
    services = set(compose.read(POSTGRES_PASSWORD="unused")["services"])
    text = "\n".join((ROOT / name).read_text() for name in ("README.md", "docs/operations.md", "docker-compose.yml"))
    named = set(re.findall(r"docker compose exec (\S+)|docker compose up --build (?!--)([\w-]+)", text))
    assert {exec_in or up for exec_in, up in named} == {"broker-1", "demo"} <= services
    assert "docker compose run" not in text


def test_a_shell_reads_the_example_of_settings(tmp_path: Path) -> None:
    example = tmp_path / ".env"
    example.write_text(EXAMPLE.read_text())
    reading = "import json, os; json.loads(os.environ['BROKER_IDENTITY__ISSUERS'])"
    for shell in ("bash", "sh"):
        run(shell, "-c", f'set -eu; set -a; . {example}; python3 -c "{reading}"')
    names = set(re.findall(r"^#? ?(BROKER_\w+)=", EXAMPLE.read_text(), re.MULTILINE))
    assert names <= known_settings()


def environment_of(service: Mapping[str, Any], instead: Mapping[str, str]) -> dict[str, str]:
    """Return the environment that Compose gives a service, with other texts in place of some that it contains."""
    text = json.dumps(service["environment"])
    for name, replacement in instead.items():
        text = text.replace(name, replacement)
    machine = {name: value for name, value in os.environ.items() if not name.startswith("BROKER_")}
    return {**machine, **json.loads(text)}


def ours(*arguments: str, env: Mapping[str, str]) -> str:
    """Run a command of the image's entrypoint to its end."""
    return run(sys.executable, "-m", "app", *arguments, env=dict(env), cwd=ROOT)


def checked(service: Mapping[str, Any], instead: Mapping[str, str], env: Mapping[str, str] | None = None) -> bool:
    """Run a service's health check, with other texts in place of some of its own; tell whether it passes."""
    kind, *words = service["healthcheck"]["test"]
    assert kind == "CMD"
    text = json.dumps(words)
    for name, replacement in instead.items():
        assert name in text
        text = text.replace(name, replacement)
    words = json.loads(text)
    words[0] = sys.executable if words[0] == "python" else program(words[0])
    done = subprocess.run(words, env=env, cwd=ROOT, capture_output=True, check=False, timeout=300)
    return done.returncode == 0


def wait_for(ask: Callable[[], bool], process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Ask until the answer is yes."""
    deadline = time.monotonic() + START_SECONDS
    while not ask():
        assert process.poll() is None, log.read_text()[-3000:]
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.1)


@contextmanager
def started(
    log: Path, *command: str | Path, env: Mapping[str, str] | None = None
) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a program until the end of the block."""
    with log.open("wb") as sink:
        process = subprocess.Popen(command, env=env, cwd=ROOT, stdout=sink, stderr=sink)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(120)


@pytest.fixture
def database(postgresql: OwnPostgresql) -> Iterator[str]:
    """Make an empty database, and return how its URL goes on after the password."""
    postgresql.sql("CREATE DATABASE composed OWNER broker")
    yield f"@127.0.0.1:{postgresql.port}/composed?"
    postgresql.cut()
    postgresql.sql("DROP DATABASE composed")


def test_migration_brokers_proxy_and_prometheus(
    compose: Compose, postgresql: OwnPostgresql, database: str, tmp_path: Path
) -> None:
    compose.fill()
    services = compose.read()["services"]
    at_database = {"@database/broker?": database}
    assert checked(services["database"], {'"--dbname"': f'"--host", "127.0.0.1", "--port", "{postgresql.port}", "-d"'})
    ours(*services["migrate"]["command"], env=environment_of(services["migrate"], at_database))

    with contextlib.ExitStack() as up:
        scraped = []
        for name in BROKERS:
            port, metrics_port = free_port(), free_port()
            address = services[name]["networks"]["monitoring"]["ipv4_address"]
            env = {
                **environment_of(services[name], {**at_database, address: "127.0.0.1"}),
                "BROKER_HTTP__PORT": str(port),
                "BROKER_METRICS__PORT": str(metrics_port),
                "BROKER_HTTP__DRAIN_SECONDS": "0",
            }
            # The image's entrypoint, and its own command: the composition gives none.
            assert services[name]["command"] is None
            log = tmp_path / name
            process = up.enter_context(started(log, sys.executable, "-m", "app", "serve", env=env))
            wait_for(lambda env=env, name=name: checked(services[name], {}, env), process, log)  # type: ignore[misc]
            scraped.append(metrics_port)
        assert checked(services["proxy"], {":8080/": f":{port}/"})

        text = (ROOT / "deploy/prometheus/compose.yml").read_text()
        for name, metrics_port in zip(BROKERS, scraped, strict=True):
            text = text.replace(f"{name}:9464", f"127.0.0.1:{metrics_port}")
        rules = ROOT / "deploy/prometheus/alerts.yml"
        file = tmp_path / "prometheus.yml"
        file.write_text(text.replace("/etc/prometheus/alerts.yml", str(rules)).replace("15s", "1s"))
        run(program("promtool"), "check", "config", file)
        port, log = free_port(), tmp_path / "prometheus"
        listening = f"--web.listen-address=127.0.0.1:{port}"
        process = up.enter_context(
            started(
                log, program("prometheus"), f"--config.file={file}", f"--storage.tsdb.path={tmp_path}/tsdb", listening
            )
        )
        wait_for(lambda: checked(services["prometheus"], {":9090/": f":{port}/"}), process, log)
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as prometheus:

            def both_are_up() -> bool:
                found = prometheus.get("/api/v1/query", params={"query": 'up{job="connect-broker"} == 1'}).json()
                return len(found["data"]["result"]) == len(BROKERS)

            wait_for(both_are_up, process, log)


def test_the_profile_scale(
    compose: Compose, postgresql: OwnPostgresql, database: str, open_directory: Path, tmp_path: Path
) -> None:
    compose.fill(scale=True)
    services = compose.read()["services"]
    # Past the pooler: a migration waits for a lock of the session.
    assert "@database/" in services["migrate"]["environment"]["BROKER_DATABASE__URL"]
    ours("migrate", env=environment_of(services["migrate"], {"@database/broker?": database}))
    mode, redis_port = services["pgbouncer"]["environment"]["POOL_MODE"], free_port()
    with (
        pgbouncer(postgresql, open_directory, mode, database="composed") as pooled,
        started(
            tmp_path / "redis", *services["redis"]["command"], "--port", str(redis_port), "--bind", "127.0.0.1"
        ) as redis,
    ):
        wait_for(
            lambda: checked(services["redis"], {'"ping"': f'"-p", "{redis_port}", "ping"'}), redis, tmp_path / "redis"
        )
        assert checked(services["pgbouncer"], {'"6432"': f'"{pooled}"'})
        port, metrics_port = free_port(), free_port()
        address = services["broker-1"]["networks"]["monitoring"]["ipv4_address"]
        instead = {
            "@pgbouncer:6432/broker?": f"@127.0.0.1:{pooled}/composed?",
            "redis:6379": f"127.0.0.1:{redis_port}",
            address: "127.0.0.1",
        }
        env = {
            **environment_of(services["broker-1"], instead),
            "BROKER_HTTP__PORT": str(port),
            "BROKER_METRICS__PORT": str(metrics_port),
            "BROKER_HTTP__DRAIN_SECONDS": "0",
        }
        log = tmp_path / "broker"
        with started(log, sys.executable, "-m", "app", "serve", env=env) as broker:
            wait_for(lambda: checked(services["broker-1"], {}, env), broker, log)
            shown = httpx2.get(f"http://127.0.0.1:{metrics_port}/metrics", timeout=30).text
            assert "\nbroker_limits_shared 1.0\n" in shown


def test_the_profile_demo(compose: Compose, tmp_path: Path) -> None:
    services = compose.read(POSTGRES_PASSWORD="unused")["services"]
    [entry] = re.findall(r"^ENTRYPOINT (\[.*\])$", (ROOT / "demo/Dockerfile").read_text(), re.MULTILINE)
    python, *arguments, state = json.loads(entry)
    assert (python, state.partition("/")[0]) == ("python", "")
    assert services["demo"]["network_mode"] == "service:sandbox"

    # What the machine publishes, the way through, and the port that the demo knows itself by are one number.
    text = (ROOT / "deploy/demo/haproxy.cfg").read_text()
    ways = re.findall(r"bind :(\d+)\n +server demo 127\.0\.0\.1:(\d+)$", text, re.MULTILINE)
    published = {(str(port["target"]), port["published"]) for port in services["sandbox"]["ports"]}
    assert set(ways) == published
    known = {demo_ports.BROKER_PORT, demo_ports.STACKONE_PORT, demo_ports.PAGE_PORT, demo_ports.PROVIDER_PORT}
    assert {int(number) for _, number in published} == known

    machine = {name: value for name, value in os.environ.items() if not name.startswith("BROKER_")}
    log = tmp_path / "demo"
    command = [sys.executable, *arguments, str(tmp_path / "state"), "--free-ports", "--json"]
    with started(log, *command, env=machine) as demo:
        wait_for(lambda: log.read_text().strip().endswith("}"), demo, log)
        ready = json.loads(log.read_text().splitlines()[-1])
        there = {
            str(demo_ports.BROKER_PORT): ready["broker"],
            str(demo_ports.STACKONE_PORT): ready["stackone"],
            str(demo_ports.PAGE_PORT): ready["idp"],
            str(demo_ports.PROVIDER_PORT): ready["provider"],
        }
        assert checked(services["sandbox"], {"http://127.0.0.1:8000": ready["broker"]})
        led = {number: free_port() for number in there}
        for outer, inner in ways:
            text = text.replace(f"bind :{outer}", f"bind 127.0.0.1:{led[inner]}")
            text = text.replace(f"127.0.0.1:{inner}\n", there[inner].removeprefix("http://") + "\n")
        file = tmp_path / "haproxy.cfg"
        file.write_text(text)
        haproxy_log = tmp_path / "haproxy"
        with started(haproxy_log, program("haproxy"), "-f", file, "-db") as haproxy:
            page = led[str(demo_ports.PAGE_PORT)]
            wait_for(
                lambda: checked(services["demo"], {":18200/": f":{page}/"}),
                haproxy,
                haproxy_log,
            )
            broker = f"http://127.0.0.1:{led[str(demo_ports.BROKER_PORT)]}"
            headers = {"authorization": f"Bearer {ready['users']['alice']['token']}"}
            minted = httpx2.post(f"{broker}/v1/connect-sessions", json={}, headers=headers, timeout=30)
            assert minted.status_code == 201, minted.text
