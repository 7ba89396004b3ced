"""Variables that platforms and shells set for all programs: none changes what the broker does."""

from pathlib import Path

import httpx2
import pytest

from sandbox.serving import bind
from tests.support.process import broker_process
from tests.support.world import World

pytestmark = pytest.mark.anyio

OF_OTHERS = {
    # gunicorn's and uvicorn's
    "WEB_CONCURRENCY": "auto",
    "FORWARDED_ALLOW_IPS": "*",
    # Prometheus' clients with several processes
    "PROMETHEUS_MULTIPROC_DIR": "/nowhere",
    # libpq's
    "PGHOST": "db.example",
    "PGSERVICE": "other",
    "PGSSLMODE": "verify-full",
    "PGTARGETSESSIONATTRS": "read-only",
    "PGOPTIONS": "-c default_transaction_read_only=on",
    # curl's
    "HTTP_PROXY": "http://127.0.0.1:1",
    "HTTPS_PROXY": "http://127.0.0.1:1",
    "ALL_PROXY": "http://127.0.0.1:1",
    # the framework's and OpenTelemetry's
    "FASTAPI_OTEL_AUTO_CONFIGURE": "true",
    "OTEL_TRACES_EXPORTER": "none",
    "OTEL_PYTHON_TRACER_PROVIDER": "other",
    # Python's
    "PYTHONOPTIMIZE": "2",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONIOENCODING": "ascii",
    # terminals'
    "COLUMNS": "wide",
    "NO_COLOR": "",
    "LANG": "C",
    "TZ": "Nowhere/Never",
}


async def test_a_session_is_opened_whatever_they_say(world: World, tmp_path: Path) -> None:
    secrets = tmp_path / "secrets-of-tls"
    with bind(0) as free:
        scraped = free.getsockname()[1]
    metrics = f'{{"port": {scraped}}}'
    async with (
        broker_process(world, BROKER_METRICS=metrics, SSLKEYLOGFILE=str(secrets), **OF_OTHERS) as process,
        httpx2.AsyncClient(base_url=process.url, timeout=20, trust_env=False) as broker,
    ):
        headers = world.as_user("alice") | {"X-Forwarded-For": "203.0.113.9"}
        minted = await broker.post("/v1/connect-sessions", headers=headers, json={"provider": "bamboohr"})
        assert minted.status_code == 201, minted.text
        told = (await broker.get(f"http://127.0.0.1:{scraped}/metrics")).text
        assert 'broker_connect_sessions_total{channel="browser",mode="create"} 1.0' in told
        status, log = await process.stop()
    assert status == 0
    assert not secrets.exists()
    assert not [line for line in log.splitlines() if '"error"' in line or "Traceback" in line]
