"""Settings: every mistake is reported at once, under the variable's name, and never with its value."""

import json
import os
from pathlib import Path

import pytest

from app.errors import SettingsError
from app.settings import Environment, load_database_settings, load_settings

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
        ("BROKER_HTTP__ALLOWED_ORIGINS", '["https://canary@canary.example"]'),
        ("BROKER_HTTP__ALLOWED_ORIGINS", '["https://canary.example:canary"]'),
        ("BROKER_HTTP__ALLOWED_ORIGINS", '["https://canary.example?"]'),
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
        issuers(jwks_uri="https://canary@keys.example.com"),
        issuers(jwks_uri="https://keys.example.com/#canary"),
        issuers(jwks_uri="https://keys.example.com:99999/"),
        issuers(jwks_uri="https://[keys.example.com/"),
        issuers(jwks_uri="https://kéys.example.com/"),
        issuers(jwks_uri="https://keys.example.com\\@canary.example.com/"),
        issuers(algorithms=["HS256"], secrets=["canary-short"]),
        issuers(secrets=["canary-secret-that-is-long-enough-for-hs256"]),
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


def test_urls_are_used_as_they_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    written = "https://login.example.com/tenant/keys/?p=b2c_1_signin"
    hook = {"name": "erp", "url": "https://hooks.example.com/in/?code=canary==", "secret": "whsec_" + "A" * 32}
    monkeypatch.setenv("BROKER_IDENTITY__ISSUERS", issuers(jwks_uri=written))
    monkeypatch.setenv("BROKER_PUSH__DESTINATIONS", json.dumps([hook]))
    settings = load_settings()
    assert settings.identity.issuers[0].jwks_uri == written
    assert settings.push.destinations[0].url == hook["url"]


def test_origins_are_spelled_as_browsers_send_them(monkeypatch: pytest.MonkeyPatch) -> None:
    written = [
        "https://App.Example.com",
        "HTTPS://app.example.com:443",
        "https://bücher.example",
        "https://a.example:8443",
    ]
    monkeypatch.setenv("BROKER_HTTP__ALLOWED_ORIGINS", json.dumps(written))
    sent = ("https://app.example.com", "https://xn--bcher-kva.example", "https://a.example:8443")
    assert load_settings().http.allowed_origins == sent


def destination(url: str) -> str:
    """Return a list of one destination."""
    return json.dumps([{"name": "erp", "url": url, "secret": "whsec_" + "A" * 32}])


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("https://10.0.0.7/in", "10.0.0.0/8"),
        ("http://10.0.0.7/in", "10.0.0.7"),
        ("https://localhost:8443/in", "localhost"),
        ("https://[fd00::7]/in", "fd00::/8"),
        ("https://[::ffff:169.254.169.254]/latest", "169.254.0.0/16"),
        ("http://erp.corp.example/in", "erp.corp.example"),
        ("http://erp.svc.cluster.local/in", ".svc.cluster.local"),
    ],
)
def test_push_reaches_inside_only_where_the_operator_says_so(
    monkeypatch: pytest.MonkeyPatch, url: str, allowed: str
) -> None:
    monkeypatch.setenv("BROKER_PUSH__DESTINATIONS", destination(url))
    monkeypatch.setenv("BROKER_PUSH__ALLOWED_NETWORKS", '["192.168.0.0/16", "other.example"]')
    assert mistakes() == ["BROKER_PUSH__DESTINATIONS[0]"]
    monkeypatch.setenv("BROKER_PUSH__ALLOWED_NETWORKS", json.dumps([allowed]))
    load_settings()


@pytest.mark.parametrize("entry", ["10.0.0.0/33", "10.0.0", "https://erp.example", "*.example", "", "a b"])
def test_a_network_that_is_none_is_a_mistake(monkeypatch: pytest.MonkeyPatch, entry: str) -> None:
    monkeypatch.setenv("BROKER_PUSH__ALLOWED_NETWORKS", json.dumps([entry]))
    assert mistakes() == ["BROKER_PUSH__ALLOWED_NETWORKS"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BROKER_TLS__PROXY", "proxy.example:3128"),
        ("BROKER_TLS__PROXY", "socks5://canary:canary@proxy.example"),
        ("BROKER_TLS__PROXY", "http://canary@proxy.example/path"),
        ("BROKER_TLS__NO_PROXY", '["*"]'),
        ("BROKER_TLS__CA_FILE", "/canary/absent.pem"),
        ("BROKER_TLS__CA_FILE", __file__),
        ("SSL_CERT_FILE", "/canary/absent.pem"),
        ("SSL_CERT_FILE", __file__),
    ],
)
def test_a_way_out_that_cannot_be_used_is_a_mistake(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    assert name in mistakes()


# What Kubernetes tells every container about Services called broker and broker-metrics, and what Docker's links add.
SERVICE_LINKS = {
    "BROKER_SERVICE_HOST": "10.43.0.17",
    "BROKER_SERVICE_PORT": "8000",
    "BROKER_SERVICE_PORT_HTTP": "8000",
    "BROKER_PORT": "tcp://10.43.0.17:8000",
    "BROKER_PORT_8000_TCP": "tcp://10.43.0.17:8000",
    "BROKER_PORT_8000_TCP_PROTO": "tcp",
    "BROKER_PORT_8000_TCP_PORT": "8000",
    "BROKER_PORT_8000_TCP_ADDR": "10.43.0.17",
    "BROKER_METRICS_SERVICE_HOST": "fd00::17",
    "BROKER_METRICS_SERVICE_PORT": "9464",
    "BROKER_METRICS_SERVICE_PORT_HTTP_METRICS": "9464",
    "BROKER_METRICS_PORT": "tcp://[fd00::17]:9464",
    "BROKER_METRICS_PORT_9464_TCP": "tcp://[fd00::17]:9464",
    "BROKER_METRICS_PORT_9464_TCP_PROTO": "tcp",
    "BROKER_METRICS_PORT_9464_TCP_PORT": "9464",
    "BROKER_METRICS_PORT_9464_TCP_ADDR": "fd00::17",
}


def test_what_kubernetes_says_of_services_is_not_for_the_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SERVICE_LINKS.items():
        monkeypatch.setenv(name, value)
    assert load_settings().http.port == 8000


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BROKER_PORT", "8000"),
        ("BROKER_METRICS_PORT", "9464"),
        ("BROKER_SERVICE_HOST", "0.0.0.0/0"),
        ("BROKER_SERVICE_KEYS_PEPPER", "canary-pepper-0123456789"),
        ("BROKER_SERVICE_PORTS", "8000"),
        ("BROKER_HTTP__PORT_8000_TCP", "tcp://10.43.0.17:8000"),
        ("BROKER_DATABASE_URL", "postgresql://canary"),
    ],
)
def test_a_name_of_ours_that_is_mistyped_still_stops_the_start(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    assert mistakes() == [name]


@pytest.mark.parametrize("in_file", [False, True])
@pytest.mark.parametrize(
    "name", ["broker_http__port", "Broker_Policy_File", "BROKER_http__PORT", "broker_database__url"]
)
def test_a_setting_that_is_not_in_capitals_is_not_passed_over(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, *, in_file: bool
) -> None:
    (tmp_path / "BROKER_HTTP__DOCS").write_text("true")
    monkeypatch.setenv("BROKER_SECRETS_DIR", str(tmp_path))
    deliver(monkeypatch, tmp_path, name, b"canary", in_file=in_file)
    assert mistakes() == [name.upper()]


def test_names_of_others_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("broker_url", "broker", "BROKERAGE__KEY", "MY_BROKER_HTTP__PORT"):
        monkeypatch.setenv(name, "amqp://canary")
    load_settings()


@pytest.mark.parametrize(
    ("written", "host"),
    [("[::]", "::"), ("::1", "::1"), ("127.0.0.2", "127.0.0.2"), ("broker.internal", "broker.internal")],
)
def test_an_address_to_listen_on_may_wear_the_brackets_of_urls(
    monkeypatch: pytest.MonkeyPatch, written: str, host: str
) -> None:
    monkeypatch.setenv("BROKER_HTTP__HOST", written)
    monkeypatch.setenv("BROKER_METRICS__HOST", written)
    settings = load_settings()
    assert (settings.http.host, settings.metrics.host) == (host, host)


@pytest.mark.parametrize("written", ["0.0.0.0:8000", "[::]:8000", "http://0.0.0.0", "*", "/run/broker.sock", "unix:x"])
def test_what_cannot_be_listened_on_is_a_mistake(monkeypatch: pytest.MonkeyPatch, written: str) -> None:
    monkeypatch.setenv("BROKER_HTTP__HOST", written)
    monkeypatch.setenv("BROKER_METRICS__HOST", written)
    assert mistakes() == ["BROKER_HTTP__HOST", "BROKER_METRICS__HOST"]


def test_two_listeners_need_two_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROKER_HTTP__PORT", "9464")
    assert mistakes() == ["BROKER_METRICS__PORT"]
    monkeypatch.setenv("BROKER_METRICS__PORT", "null")
    load_settings()


KEY = GOOD["BROKER_STACKONE__API_KEY"]
HARMLESS = [
    KEY + "\n",
    KEY + "\r\n",
    f" {KEY} ",
    f'"{KEY}"',
    f"'{KEY}'\n",
    f"\ufeff{KEY}",
    f"{KEY}\u200b",
    f'"{KEY}\n"',
]
HARMFUL = [
    "canary-key\n-in-two-lines",
    "canary-\x00-0123456789",
    "canary\u200b-0123456789",
    '"canary-0123456789',
    '""',
    " ",
]


@pytest.mark.parametrize("in_file", [False, True])
@pytest.mark.parametrize("value", HARMLESS)
def test_what_a_platform_puts_around_a_secret_is_taken_off(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, value: str, *, in_file: bool
) -> None:
    deliver(monkeypatch, tmp_path, "BROKER_STACKONE__API_KEY", value.encode(), in_file=in_file)
    assert load_settings().stackone.api_key.get_secret_value() == KEY


@pytest.mark.parametrize("in_file", [False, True])
@pytest.mark.parametrize("value", [*HARMFUL, b"canary-\xff\xfe-0123456789"])
def test_a_secret_that_cannot_be_meant_is_refused_by_its_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, value: str | bytes, *, in_file: bool
) -> None:
    raw = value if isinstance(value, bytes) else value.encode()
    in_file = in_file or b"\x00" in raw  # no environment can hold a NUL
    deliver(monkeypatch, tmp_path, "BROKER_STACKONE__API_KEY", raw, in_file=in_file)
    assert mistakes() == ["BROKER_STACKONE__API_KEY"]


def deliver(monkeypatch: pytest.MonkeyPatch, folder: Path, name: str, raw: bytes, *, in_file: bool) -> None:
    """Set a variable to bytes, in the environment or by a file of the secrets folder."""
    if in_file:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("BROKER_SECRETS_DIR", str(folder))
        (folder / name).write_bytes(raw)
    else:
        monkeypatch.setenv(name, os.fsdecode(raw))


@pytest.mark.parametrize(
    "value",
    [
        '["canary-webhook-secret-0123\\n"]',
        "'[\"canary-webhook-secret-0123\"]'",
        '"[\\"canary-webhook-secret-0123\\"]"',
        '[\n  "canary-webhook-secret-0123"\n]\n',
    ],
)
def test_lists_are_cleaned_inside_and_out(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("BROKER_STACKONE__WEBHOOK_SECRETS", value)
    [secret] = load_settings().stackone.webhook_secrets
    assert secret.get_secret_value() == "canary-webhook-secret-0123"


def test_a_secret_in_a_list_is_refused_by_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROKER_STACKONE__WEBHOOK_SECRETS", '["canary-webhook\\n-0123456789"]')
    assert mistakes() == ["BROKER_STACKONE__WEBHOOK_SECRETS"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be"])
def test_files_of_windows_are_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, encoding: str) -> None:
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    raw = f"{mark}{KEY}\r\n".encode(encoding)
    deliver(monkeypatch, tmp_path, "BROKER_STACKONE__API_KEY", raw, in_file=True)
    assert load_settings().stackone.api_key.get_secret_value() == KEY


def test_a_secret_that_kubernetes_mounts_is_read_through_its_links(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    revision = tmp_path / "..2026_11_26"
    revision.mkdir()
    (tmp_path / "..data").symlink_to(revision.name)
    (tmp_path / ".BROKER_STACKONE__API_KEY.swp").write_text("canary")
    for name, value in GOOD.items():
        monkeypatch.delenv(name)
        (revision / name).write_text(value)
        (tmp_path / name).symlink_to(f"..data/{name}")
    monkeypatch.setenv("BROKER_SECRETS_DIR", f"{tmp_path}\n")
    assert load_settings().stackone.api_key.get_secret_value() == KEY
    (tmp_path / "BROKER_STACKONE__API_KEY").unlink()
    (tmp_path / "BROKER_STACKONE__API_KEY").mkdir()
    (tmp_path / "BROKER_SERVICE_KEYS__PEPPER").unlink()
    (tmp_path / "BROKER_SERVICE_KEYS__PEPPER").symlink_to("..data/absent")
    assert mistakes() == ["BROKER_SERVICE_KEYS__PEPPER", "BROKER_STACKONE__API_KEY"]


def test_migrations_need_the_database_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in GOOD:
        if name != "BROKER_DATABASE__URL":
            monkeypatch.delenv(name)
    assert load_database_settings().url.get_secret_value() == GOOD["BROKER_DATABASE__URL"]


@pytest.mark.parametrize(
    ("url", "said", "wrong"),
    [
        ("redis://:pw@cache.example.com:6379/0", None, True),
        ("redis://cache", None, True),
        ("redis://10.0.0.9", "false", True),
        ("redis://cache", "true", False),
        ("rediss://cache", None, False),
        ("redis://localhost", None, False),
        ("redis://127.0.0.2:6380", None, False),
        ("redis://[::1]", None, False),
        ("memory://", None, False),
    ],
)
def test_redis_elsewhere_speaks_tls_or_somebody_said_that_it_need_not(
    monkeypatch: pytest.MonkeyPatch, url: str, said: str | None, *, wrong: bool
) -> None:
    monkeypatch.setenv("BROKER_LIMITS__STORAGE_URL", url)
    if said is not None:
        monkeypatch.setenv("BROKER_LIMITS__STORAGE_WITHOUT_TLS", said)
    found = [mistake for mistake in mistakes() if "STORAGE_URL" in mistake] if wrong else []
    assert len(found) == int(wrong)
    assert "pw" not in "".join(found)
    if not wrong:
        load_settings()


def told(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> list[str]:
    """Return what is said of one setting."""
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    return list(caught.value.mistakes)


def test_a_list_is_not_called_empty_because_its_entries_have_mistakes(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "BROKER_IDENTITY__ISSUERS"
    [line] = told(monkeypatch, name, issuers(algorithms=["HS256"]))
    assert "a secret goes with HS* algorithms" in line
    [line] = told(monkeypatch, name, issuers(audiences=[7]))
    assert "AUDIENCES" in line
    assert told(monkeypatch, name, "[]") == [f"{name}: must not be empty"]
    assert told(monkeypatch, name, issuers(audiences=[])) == [
        "BROKER_IDENTITY__ISSUERS__AUDIENCES[0]: must not be empty"
    ]


def test_an_authority_that_is_none_is_told_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "own.pem").write_text("no certificate")
    [line] = told(monkeypatch, "BROKER_TLS__CA_FILE", str(tmp_path / "own.pem"))
    assert line.startswith("BROKER_TLS__CA_FILE: ")
