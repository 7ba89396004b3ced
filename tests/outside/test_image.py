"""The image: built in a clean root, then run as a user that nobody has, on a root that cannot be written.

The base of the Dockerfile comes from a registry of containers. In its place stands a Debian of the same version, made
by debootstrap, whose Python is the same; everything above it is what the Dockerfile says, carried out by Buildah.
"""

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

import app
from tests.checks.pages import ROOT
from tests.neighbours.conftest import program
from tests.neighbours.postgresql import OwnPostgresql
from tests.support.programs import free_port

pytestmark = pytest.mark.timeout(3000)

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
# The base image's Debian and Python, and what stands in for it.
SUITE, PYTHON = "trixie", "3.13"
BASE = f"python:{PYTHON}-slim"
NODE_BASE = "node:22-slim"
TRIES = 3
ROOM_KB = 8 << 20
START_SECONDS = 300
# In no table of users: platforms choose such ones.
USER = 1_234_567
OTHERS = [f"--{kind}={USER}" for kind in ("reuid", "regid")]

# In namespaces of its own, so that nothing of it is left: a root that is read-only but for /tmp, and no capability.
ENTER = """\
mount --bind "$0" "$0"
mount -o remount,bind,ro "$0"
mount -t tmpfs -o size=64m,mode=1777 tmpfs "$0/tmp"
mount -t proc proc "$0/proc"
mount --rbind /dev "$0/dev"
exec chroot "$0" setpriv {others} --clear-groups --no-new-privs --inh-caps=-all --bounding-set=-all "$@"
""".format(others=" ".join(OTHERS))


def run(*command: str | Path, within: float = 1500) -> str:
    """Run a program to its end and return what it said."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=within)
    assert done.returncode == 0, f"{command}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@dataclass(frozen=True)
class Image:
    """What was built: its files, and what it says about how it is run."""

    root: Path
    config: Mapping[str, Any]

    def command(self, *words: str, **settings: str) -> list[str]:
        """Return the command that runs words in it, with its environment and settings, as nobody it knows."""
        environment = [*self.config["Env"], *(f"{name}={value}" for name, value in settings.items())]
        inside = 'cd "$0" && exec "$@"'
        return [
            *("unshare", "--mount", "--propagation", "private", "sh", "-ec", ENTER, str(self.root)),
            *("env", "-i", *environment, "sh", "-c", inside, str(self.config["WorkingDir"]), *words),
        ]

    def broker(self, *arguments: str, **settings: str) -> list[str]:
        """Return the command that its entrypoint makes of arguments."""
        return self.command(*self.config["Entrypoint"], *arguments, **settings)


def prepared_base(directory: Path) -> Path:
    """Make the Debian that stands in for the base image. What it is fetched with is this machine's."""
    root = directory / "base"
    include = "--include=python3,python3-venv,python-is-python3,ca-certificates"
    made = ["debootstrap", "--variant=minbase", f"--keyring={KEYRING}", "--force-check-gpg", include, SUITE, str(root)]
    for tried in range(1, TRIES + 1):
        done = subprocess.run(made, capture_output=True, text=True, check=False, timeout=1500)
        if done.returncode == 0:
            break
        if tried == TRIES:
            pytest.skip(f"no Debian to build on, so the image is NOT CHECKED: {(done.stdout + done.stderr)[-300:]}")
    # How this machine reaches its registries: proxies, and the authorities it trusts.
    proxies = [line for line in run("apt-config", "dump").splitlines() if "::Proxy " in line]
    (root / "etc/apt/apt.conf.d/90machine").write_text("\n".join([*proxies, ""]))
    if CERTIFICATES.exists():
        (root / "etc/registries.pem").write_bytes(CERTIFICATES.read_bytes())
        (root / "etc/pip.conf").write_text("[global]\ncert = /etc/registries.pem\n")
    return root


class Builder:
    """Buildah, with a store of its own; nothing in it comes from a registry."""

    def __init__(self, directory: Path) -> None:
        """Have an empty store."""
        self._buildah = program("buildah")
        self._store = [f"--root={directory}/store", f"--runroot={directory}/run", "--storage-driver=vfs"]
        policy = directory / "policy.json"
        policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
        self._policy = f"--signature-policy={policy}"

    def do(self, verb: str, *arguments: str | Path) -> str:
        """Carry out one of its verbs."""
        return run(self._buildah, *self._store, verb, *arguments).strip()

    def started(self, name: str) -> str:
        """Make a container of an image, or of nothing."""
        return self.do("from", "--pull-never", self._policy, name)

    def committed(self, container: str, name: str) -> None:
        """Make an image of a container."""
        self.do("commit", self._policy, "--quiet", "--rm", container, name)

    def built(self, file: str) -> Image:
        """Carry out a Dockerfile of this repository."""
        name = f"localhost/{file.lower().replace('/', '-')}"
        options = ("--isolation=chroot", "--pull-never", "--format=docker", "--layers=false", self._policy)
        self.do("bud", *options, "--file", ROOT / file, f"--tag={name}", ROOT)
        described = json.loads(self.do("inspect", "--type=image", name))
        return Image(Path(self.do("mount", self.started(name))), described["Docker"]["config"])


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Builder]:
    """Prepare the base image."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to make a root of its own: sudo make image-check")
    program("debootstrap")
    if not KEYRING.exists():
        pytest.skip("needs Debian's keys: apt-get install debian-archive-keyring")
    directory = tmp_path_factory.mktemp("image")
    # In memory where there is room: layers are copied whole, many small files each time.
    memory = re.findall(r"^MemAvailable: +(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    mounted = int(memory[0]) > ROOM_KB and not subprocess.call(
        ["mount", "-t", "tmpfs", "-o", "size=6g,mode=755", "tmpfs", directory]
    )
    base = prepared_base(directory)
    prepared = Builder(directory)
    container = prepared.started("scratch")
    prepared.do("add", "--quiet", container, base, "/")
    prepared.committed(container, f"docker.io/library/{BASE}")
    run("rm", "-rf", base)
    try:
        yield prepared
    finally:
        prepared.do("rm", "--all")
        run("umount", directory) if mounted else run("rm", "-rf", directory)


@pytest.fixture(scope="module")
def image(builder: Builder) -> Image:
    """Build the image."""
    return builder.built("Dockerfile")


@pytest.fixture(scope="module")
def demo_image(builder: Builder) -> Image:
    """Build the demo's image, with this machine's Node.js in place of the one of Node's own image."""
    node = Path(program("node")).resolve()
    packages = Path(program("npm")).resolve().parents[1]
    if "libnode" in run("ldd", node):
        pytest.skip("needs a Node.js that is one file, to be put into a clean root")
    container = builder.started(f"docker.io/library/{BASE}")
    builder.do("add", "--quiet", container, node, "/usr/local/bin/node")
    builder.do("add", "--quiet", container, packages, "/usr/local/lib/node_modules/npm")
    link = ("ln", "-s", "../lib/node_modules/npm/bin/npm-cli.js", "/usr/local/bin/npm")
    builder.do("run", "--isolation=chroot", container, *link)
    trust = ("sh", "-c", "test ! -e /etc/registries.pem || echo cafile=/etc/registries.pem > ~/.npmrc")
    builder.do("run", "--isolation=chroot", container, *trust)
    builder.committed(container, f"docker.io/library/{NODE_BASE}")
    return builder.built("demo/Dockerfile")


def settings_of(port: int, metrics_port: int, database_url: str) -> dict[str, str]:
    """Return the fewest settings that production starts with; nothing in them leads off this machine."""
    issuer = {
        "issuer": "https://login.example.com/",
        "audiences": ["connect-broker"],
        "algorithms": ["HS256"],
        "secrets": ["a-secret-of-forty-letters-that-nobody-guesses"],
        "claims": {"owner_id": "org_id"},
    }
    return {
        "BROKER_STACKONE__API_KEY": "v1.us1.not-a-key-of-anybody",
        "BROKER_STACKONE__WEBHOOK_SECRETS": '["not a secret of anybody"]',
        "BROKER_IDENTITY__ISSUERS": json.dumps([issuer]),
        "BROKER_SERVICE_KEYS__PEPPER": "a-pepper-of-44-letters-that-nobody-guesses-ok",
        "BROKER_DATABASE__URL": database_url,
        "BROKER_SYNC__ENABLED": "false",
        "BROKER_HTTP__PORT": str(port),
        "BROKER_HTTP__DRAIN_SECONDS": "0",
        "BROKER_METRICS__PORT": str(metrics_port),
    }


@contextmanager
def started(command: Sequence[str], log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a command until the end of the block, then stop it as a platform does."""
    with log.open("wb") as sink:
        process = subprocess.Popen(command, stdout=sink, stderr=sink)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(120)


def answers(client: httpx2.Client) -> bool:
    """Tell whether anybody does."""
    try:
        return client.get("/livez").is_success
    except httpx2.TransportError:
        return False


@pytest.fixture
def database_of_its_own(postgresql: OwnPostgresql) -> str:
    """Make an empty database."""
    postgresql.sql("CREATE DATABASE image OWNER broker")
    return postgresql.url(database="image", words={"sslmode": "disable"})


def test_the_bases_are_the_ones_that_were_built_on() -> None:
    def named(file: str) -> list[str]:
        return re.findall(r"^FROM (\S+)", (ROOT / file).read_text(), re.MULTILINE)

    assert named("Dockerfile") == [BASE, BASE]
    assert named("demo/Dockerfile") == [NODE_BASE, BASE]


def test_what_it_says_of_itself(image: Image) -> None:
    labels = image.config["Labels"]
    assert {"title", "description", "licenses", "source"} <= {name.rpartition(".")[2] for name in labels}
    assert int(image.config["User"]) > 0
    assert set(image.config["ExposedPorts"]) == {"8000/tcp", "9464/tcp"}
    assert run(*image.broker("--version")).strip() == app.__version__
    # On the PATH, too.
    assert run(*image.command("broker", "--version")).strip() == app.__version__


def test_it_has_what_serves_and_nothing_else(image: Image) -> None:
    assert {path.name for path in (image.root / "srv/broker").iterdir()} == {"app", "migrations"}
    [packages] = (image.root / "opt/broker/lib").glob("python*/site-packages")
    assert packages.parent.name == f"python{PYTHON}"
    there = {path.name.partition("-")[0].lower() for path in packages.glob("*.dist-info")}
    assert "pip" not in there
    assert {"fastapi", "asyncpg", "redis", "opentelemetry_sdk"} <= there
    assert {"pytest", "hypothesis", "mypy"}.isdisjoint(there)
    assert "ro," in run(*image.command("sh", "-c", "grep ' / ' /proc/mounts | tail -1"))
    assert run(*image.command("id", "-u")).strip() == str(USER)


def test_it_serves_as_any_user_on_a_root_that_cannot_be_written(
    image: Image, database_of_its_own: str, tmp_path: Path
) -> None:
    port, metrics_port = free_port(), free_port()
    settings = settings_of(port, metrics_port, database_of_its_own)
    health = image.config["Healthcheck"]["Test"]
    assert health[0] == "CMD"
    asked = image.command(*health[1:], **settings)
    # Nobody serves yet, and that is what it says.
    assert subprocess.run(asked, capture_output=True, check=False, timeout=300).returncode != 0
    run(*image.broker("migrate", BROKER_DATABASE__URL=database_of_its_own))

    log = tmp_path / "log"
    with started(image.broker(*image.config["Cmd"], **settings), log) as serving:
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            deadline = time.monotonic() + START_SECONDS
            while not answers(client):
                assert serving.poll() is None, log.read_text()[-3000:]
                assert time.monotonic() < deadline, log.read_text()[-3000:]
                time.sleep(0.1)
            assert client.get("/livez").status_code == client.get("/readyz").status_code == 200
            metrics = client.get(f"http://127.0.0.1:{metrics_port}/metrics").text
        assert f'version="{app.__version__}"' in re.findall(r"^broker_build_info.*", metrics, re.MULTILINE)[0]
        assert run(*asked) == "ok\n"
        assert run(*image.command("broker", "health", "--ready", **settings)) == "ok\n"
    assert serving.returncode == 0, log.read_text()[-3000:]
    first = json.loads(log.read_text().splitlines()[0])
    assert (first["event"], first["version"]) == ("broker_starts", app.__version__)


def test_the_demo_has_its_page(demo_image: Image, tmp_path: Path) -> None:
    there = {path.name for path in (demo_image.root / "srv/broker").iterdir()}
    assert there == {"app", "migrations", "sandbox", "demo"}
    log = tmp_path / "log"
    with started(demo_image.broker("--free-ports", "--json"), log) as demo:
        deadline = time.monotonic() + START_SECONDS
        while not (said := log.read_text().splitlines()) or not said[-1].endswith("}"):
            assert demo.poll() is None, said
            assert time.monotonic() < deadline, said
            time.sleep(0.1)
        ready = json.loads(said[-1])
        page = httpx2.get(ready["page"], timeout=30)
        assert page.status_code == 200
        script = re.findall(r'src="(/assets/[^"]+\.js)"', page.text)
        assert httpx2.get(ready["page"] + script[0], timeout=30).status_code == 200
        assert httpx2.get(f"{ready['broker']}/readyz", timeout=30).status_code == 200
