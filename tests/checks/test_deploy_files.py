"""Every file that somebody deploys is named here by a test that starts it, or holds it against its schema."""

import subprocess
from pathlib import Path

from tests.checks.pages import ROOT

_DEPLOYED = ("deploy", ".github", "docker-compose.yml", ".env.example", "*Dockerfile", "*.dockerignore")
_OUTSIDE = {
    "Dockerfile": ("image", "test_it_serves_as_any_user_on_a_root_that_cannot_be_written"),
    ".dockerignore": ("image", "test_it_has_what_serves_and_nothing_else"),
    "demo/Dockerfile": ("image", "test_the_demo_has_its_page"),
    "demo/Dockerfile.dockerignore": ("image", "test_the_demo_has_its_page"),
    "docker-compose.yml": ("compose", "test_it_is_what_the_specification_says"),
    ".env.example": ("compose", "test_a_shell_reads_the_example_of_settings"),
    ".github/renovate.json": ("release", "test_they_are_what_their_schemas_say"),
    ".github/workflows/*.yml": ("release", "test_they_are_what_their_schemas_say"),
    "deploy/demo/haproxy.cfg": ("compose", "test_the_profile_demo"),
    "deploy/grafana/broker.json": ("watching", "test_every_query_of_the_dashboard_finds_data_in_a_demo_under_load"),
    "deploy/helm/connect-broker/**/*": ("deploy", "test_the_chart_renders_what_kubernetes_takes"),
    "deploy/kubernetes/connect-broker.yaml": ("deploy", "test_the_manifests_are_those_of_the_chart"),
    "deploy/prometheus/alerts*.yml": ("watching", "test_promtool_finds_the_alerts_right"),
    "deploy/prometheus/compose.yml": ("compose", "test_migration_brokers_proxy_and_prometheus"),
    "deploy/proxies/Caddyfile": ("deploy", "test_caddy_serves_two_replicas_with_the_file"),
    "deploy/proxies/nginx.conf": ("deploy", "test_nginx_serves_two_replicas_with_the_file"),
    "deploy/systemd/connect-broker.service": ("deploy", "test_the_unit_is_one_that_systemd_takes"),
}


def tracked() -> set[Path]:
    """Return the files that git tracks or could track."""
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *_DEPLOYED]
    listed = subprocess.run(listing, check=True, capture_output=True, text=True, cwd=ROOT).stdout.splitlines()
    return {ROOT / name for name in listed if (ROOT / name).is_file()}


def test_every_file_that_is_deployed_is_named_by_a_check() -> None:
    named = {path for pattern in _OUTSIDE for path in ROOT.glob(pattern) if path.is_file()}
    assert sorted(path.relative_to(ROOT).as_posix() for path in tracked() - named) == []
    assert [pattern for pattern in _OUTSIDE if not any(ROOT.glob(pattern))] == []


def test_the_checks_are_there() -> None:
    gone = [
        f"tests/outside/test_{module}.py::{name}"
        for module, name in _OUTSIDE.values()
        if f"def {name}(" not in (ROOT / f"tests/outside/test_{module}.py").read_text(encoding="utf-8")
    ]
    assert gone == []
