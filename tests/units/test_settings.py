"""Settings: every mistake is reported at once, under the variable's name, and never with its value."""

import json
import os
from pathlib import Path

import pytest

from app.settings import Environment, SettingsError, load_database_settings, load_settings

ISSUER = {
    "issuer": "https://login.example.com/",
    "audiences": ["connect-broker"],
    "claims": {"owner_id": "org_id"},
}
GOOD = {
    "BROKER_STACKONE__API_KEY": "v1.eu1.canary-not-a-real-key-0123456789",
    "BROKER_STACKONE__WEBHOOK_SECRETS": '["canary-webhook-secret-0123"]',
    "BROKER_DATABASE__URL": "postgresql://broker:canary-password@database/broker?sslmode=disable",
    "BROKER_IDENTITY__ISSUERS": json.dumps([ISSUER]),
    "BROKER_SERVICE_KEYS__PEPPER": "canary-pepper-0123456789",
}


@pytest.fixture(autouse=True)
def _only_these(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("BROKER_")]:
        monkeypatch.delenv(name)
    for name, value in GOOD.items():
        monkeypatch.setenv(name, value)


def mistakes() -> list[str]:
    """Return what is wrong with the environment as it is."""
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert "canary" not in str(caught.value)
    return sorted(mistake.split(":")[0] for mistake in caught.value.mistakes)


def issuers(**changes: object) -> str:
    """Return one issuer, changed."""
    return json.dumps([{name: value for name, value in {**ISSUER, **changes}.items() if value is not None}])


def test_a_production_environment_is_accepted() -> None:
    settings = load_settings()
    assert settings.environment is Environment.PRODUCTION
    assert "canary" not in repr(settings)
    assert "canary" not in settings.model_dump_json()


@pytest.mark.parametrize(
    ("name", "section", "setting"),
    [
        ("BROKER_METRICS__PORT", "metrics", "port"),
        ("BROKER_IDENTITY__COOKIE", "identity", "cookie"),
        ("BROKER_STACKONE__PROJECT_ID", "stackone", "project_id"),
    ],
)
def test_null_turns_off(monkeypatch: pytest.MonkeyPatch, name: str, section: str, setting: str) -> None:
    monkeypatch.setenv(name, "null")
    assert getattr(getattr(load_settings(), section), setting) is None


def test_null_for_what_must_be_there_is_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROKER_HTTP__PORT", "null")
    monkeypatch.setenv("BROKER_STACKONE__API_KEY", "null")
    assert mistakes() == ["BROKER_HTTP__PORT", "BROKER_STACKONE__API_KEY"]


def test_nothing_is_required_twice_and_everything_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in GOOD:
        monkeypatch.delenv(name)
    monkeypatch.setenv("BROKER_HTTP__PORT", "canary")
    monkeypatch.setenv("BROKER_HTPP__PORT", "1")
    assert mistakes() == sorted([*GOOD, "BROKER_HTTP__PORT", "BROKER_HTPP__PORT"])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BROKER_STACKONE__BASE_URL", "http://api.stackone.com"),
        ("BROKER_STACKONE__BASE_URL", "http://127.0.0.1:8100"),
        ("BROKER_STACKONE__BASE_URL", "https://canary:canary@api.stackone.com"),
        ("BROKER_STACKONE__BASE_URL", "https://api.stackone.com/?canary=1"),
        ("BROKER_STACKONE__BASE_URL", "ftp://api.stackone.com"),
        ("BROKER_STACKONE__API_KEY", "demo-canary-0123456789"),
        ("BROKER_STACKONE__API_KEY", "canary"),
        ("BROKER_STACKONE__API_KEY", ""),
        ("BROKER_STACKONE__WEBHOOK_SECRETS", "[]"),
        ("BROKER_STACKONE__WEBHOOK_SECRETS", '[""]'),
        ("BROKER_STACKONE__WEBHOOK_SECRETS", "canary-is-no-json-list"),
        ("BROKER_STACKONE__WEBHOOK_SECRETS", '["canary'),
        ("BROKER_STACKONE__WEBHOOK_SECRETS", '["demo-canary-0123456789"]'),
        ("BROKER_DATABASE__URL", "mysql://canary"),
        ("BROKER_SERVICE_KEYS__PEPPER", "demo-canary-0123456789"),
        ("BROKER_SERVICE_KEYS__PEPPER", "canary"),
        ("BROKER_HTTP__ALLOWED_ORIGINS", '["*"]'),
        ("BROKER_HTTP__ALLOWED_ORIGINS", '["https://*.canary.example"]'),
        ("BROKER_HTTP__ALLOWED_ORIGINS", '["https://canary.example/"]'),
        ("BROKER_HTTP__ALLOWED_ORIGINS", '["http://canary.example"]'),
        ("BROKER_HTTP__ALLOWED_ORIGINS", '["null"]'),
        ("BROKER_HTTP__TRUSTED_PROXIES", '["canary"]'),
        ("BROKER_HTTP__PORTT", "1"),
        ("BROKER_POLICY_FILE", "canary.toml"),
    ],
)
def test_an_unsafe_or_wrong_value_is_one_mistake(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    [mistake] = mistakes()
    assert mistake == name or mistake.startswith(f"{name}[")


@pytest.mark.parametrize(
    "value",
    [
        issuers(issuer="http://login.example.com"),
        issuers(audiences=[]),
        issuers(algorithms=["RS256", "HS256"], secret="canary-secret-that-is-long-enough-for-hs256"),
        issuers(algorithms=["RS256", "ES256"]),
        issuers(algorithms=["none"]),
        issuers(algorithms=["HS256"]),
        issuers(secret="canary-secret-that-is-long-enough-for-hs256"),
        issuers(algorithms=["HS256"], secret="canary-short"),
        issuers(jwks_uri="http://keys.example.com"),
        issuers(jwks_uri="https://keys.example.com", jwks_file="keys.json"),
        issuers(jwks_file="canary-absent.json"),
        issuers(claims=None),
        issuers(leeway_seconds=61),
        json.dumps([ISSUER, ISSUER]),
        "[]",
    ],
)
def test_an_issuer_that_cannot_be_trusted_stops_the_start(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("BROKER_IDENTITY__ISSUERS", value)
    assert all(mistake.startswith("BROKER_IDENTITY") for mistake in mistakes())


def test_users_tokens_of_a_shared_issuer_cannot_open_the_service_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = {"issuer": ISSUER["issuer"], "audiences": ["connect-broker"]}
    monkeypatch.setenv("BROKER_IDENTITY__MACHINE_ISSUERS", json.dumps([machine]))
    assert mistakes() == ["BROKER_IDENTITY"]
    monkeypatch.setenv("BROKER_IDENTITY__MACHINE_ISSUERS", json.dumps([{**machine, "audiences": ["machines"]}]))
    load_settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BROKER_HTTP__HOST", "0.0.0.0"),  # noqa: S104  that is what is refused
        ("BROKER_STACKONE__API_KEY", "v1.us1.canary-looks-real-0123456789"),
        ("BROKER_STACKONE__BASE_URL", "http://192.168.0.1:8100"),
    ],
)
def test_development_stays_on_this_machine_and_holds_no_real_key(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv("BROKER_ENVIRONMENT", "development")
    monkeypatch.setenv("BROKER_STACKONE__API_KEY", "demo-canary-0123456789")
    monkeypatch.setenv("BROKER_STACKONE__BASE_URL", "http://127.0.0.1:8100")
    load_settings()
    monkeypatch.setenv(name, value)
    assert mistakes() == [name]


def test_secrets_may_come_from_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in GOOD.items():
        (tmp_path / name).write_text(value + "\n")
        monkeypatch.delenv(name)
    monkeypatch.setenv("BROKER_SECRETS_DIR", str(tmp_path))
    monkeypatch.setenv("BROKER_SERVICE_KEYS__PEPPER", "canary-from-the-environment")
    settings = load_settings()
    assert settings.stackone.api_key.get_secret_value() == GOOD["BROKER_STACKONE__API_KEY"]
    assert settings.service_keys.pepper.get_secret_value() == "canary-from-the-environment"


def test_migrations_need_the_database_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in GOOD:
        if name != "BROKER_DATABASE__URL":
            monkeypatch.delenv(name)
    assert load_database_settings().url.get_secret_value() == GOOD["BROKER_DATABASE__URL"]
