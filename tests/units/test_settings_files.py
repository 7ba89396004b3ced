"""A hundred settings files as platforms spell them: what check-config calls fine works, and nothing prints a secret.

Each file is GOOD with some variables written in another way, in the environment or in a folder of secrets.
"""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import pytest

from app.cli.opener import configured_secrets
from app.errors import SettingsError
from app.main import create_app
from app.push.deliver import open_sender
from app.runtime import open_runtime
from app.settings import Settings, load_settings
from tests.units.test_settings import GOOD, ISSUER

pytestmark = pytest.mark.anyio

KEY = "BROKER_STACKONE__API_KEY"
HOOKS = "BROKER_STACKONE__WEBHOOK_SECRETS"
DATABASE = "BROKER_DATABASE__URL"
ISSUERS = "BROKER_IDENTITY__ISSUERS"
PEPPER = "BROKER_SERVICE_KEYS__PEPPER"
ORIGINS = "BROKER_HTTP__ALLOWED_ORIGINS"
PUSH = "BROKER_PUSH__DESTINATIONS"
REDIS = "BROKER_LIMITS__STORAGE_URL"
PROXY = "BROKER_TLS__PROXY"
ALL = {
    **GOOD,
    ORIGINS: '["https://app.example.com"]',
    PUSH: json.dumps(
        [{"name": "erp", "url": "https://hooks.example.com/in/", "secret": "whsec_Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5"}]
    ),
    REDIS: "redis://default:canary-redis@127.0.0.1:6379/0",
    PROXY: "http://broker:canary-proxy@proxy.example.com:3128",
}
SECRETS = ("canary", "Y2FuYXJ5")


@dataclass(frozen=True)
class File:
    """One way to configure the broker. `fine` is whether check-config must accept it; None leaves that open."""

    name: str
    variables: dict[str, str] = field(repr=False)
    files: dict[str, bytes] = field(default_factory=dict, repr=False)
    fine: bool | None = True


# What platforms put around a value: an env file of Docker, a shell, `echo | base64`, an editor, a web page.
AROUND: dict[str, Callable[[str], str]] = {
    "double quotes, as docker --env-file keeps them": lambda value: f'"{value}"',
    "single quotes": lambda value: f"'{value}'",
    "newline of echo | base64": lambda value: f"{value}\n",
    "line end of Windows in quotes": lambda value: f"'{value}'\r\n",
    "spaces of a YAML block": lambda value: f"  {value}\n\n",
    "copied from a web page": lambda value: f"\u200b{value}\u00a0",
}
ENCODED: dict[str, Callable[[str], bytes]] = {
    "a file with a newline, as Kubernetes and Docker mount it": lambda value: f"{value}\n".encode(),
    "Notepad": lambda value: f"{value}\r\n".encode("utf-8-sig"),
    "PowerShell's >": lambda value: f"{value}\r\n".encode("utf-16"),
    "a quoted file": lambda value: f'"{value}"'.encode(),
}
# A value that a platform should have replaced, was cut, or stands in a language that is not JSON.
UNUSABLE = {
    "compose without the variable": (KEY, "${STACKONE_API_KEY}"),
    "kubernetes without the variable": (KEY, "$(STACKONE_API_KEY)"),
    "a shell that did not expand": (PEPPER, "$BROKER_PEPPER_FROM_VAULT"),
    "helm without the value": (PEPPER, "<no value>"),
    "jinja": (PEPPER, "{{ vault_broker_pepper }}"),
    "1Password": (KEY, "op://canary-vault/stackone/key"),
    "Vault": (KEY, "vault://secret/data/canary#key"),
    "AWS": (KEY, "arn:aws:secretsmanager:eu-west-1:123:secret:canary"),
    "Google": (KEY, "projects/canary-1/secrets/key/versions/latest"),
    "Azure's vault": (KEY, "@Microsoft.KeyVault(SecretUri=https://canary.vault.azure.net/secrets/key)"),
    "Azure's container apps": (KEY, "secretref:canary-stackone-key"),
    "Azure's app configuration": (KEY, "@Microsoft.AppConfiguration(Endpoint=https://canary.azconfig.io; Key=k)"),
    "AWS's parameter store": (KEY, "ssm:/canary/stackone/key"),
    "CloudFormation": (KEY, "{{resolve:secretsmanager:canary:SecretString:key}}"),
    "CloudFormation's tag": (KEY, "!Sub ${CanaryStackOneKey}"),
    "Google by its whole name": (KEY, "//secretmanager.googleapis.com/projects/canary/secrets/key"),
    "Berglas": (KEY, "sm://canary-project/stackone-key"),
    "Bank-Vaults": (KEY, "vault:secret/data/canary#key"),
    "Bank-Vaults in a file": (KEY, ">>vault:secret/data/canary#key"),
    "Doppler": (KEY, "doppler://canary/stackone_key"),
    "sops": (KEY, "ENC[AES256_GCM,data:canary,iv:d,tag:e,type:str]"),
    "Ansible's vault": (KEY, "$ANSIBLE_VAULT;1.1;AES256 canary"),
    "Octopus": (KEY, "#{CanaryStackOneKey}"),
    "Azure's pipelines": (KEY, "__CANARY_STACKONE_KEY__"),
    "Concourse": (KEY, "((canary-stackone-key))"),
    "a batch file": (KEY, "%CANARY_STACKONE_KEY%"),
    "a shell's command": (KEY, "`cat /run/secrets/canary`"),
    "a URL of a file": (KEY, "file:///run/secrets/canary"),
    "what a log shows instead": (KEY, "********************"),
    "what Terraform shows instead": (KEY, "(sensitive value)"),
    "JavaScript without the variable": (KEY, "undefined"),
    "a word processor's quotes": (KEY, "\u201ccanary-0123456789abcdef\u201d"),
    "the whole line": (KEY, "BROKER_STACKONE__API_KEY=canary-0123456789abcdef"),
    "a line of a shell": (PEPPER, "export PEPPER=canary-0123456789abcdef"),
    "an example": (PEPPER, "change-me-0123456789-canary"),
    "another example": (KEY, "your-stackone-api-key-canary"),
    "one letter": (PEPPER, "xxxxxxxxxxxxxxxxxxxxxxxx"),
    "a reference in a list": (HOOKS, '["secretref:canary-webhook-secret"]'),
    "an empty variable": (KEY, ""),
    "one quote": (KEY, '"canary-0123456789abcdef'),
    "two lines": (KEY, "canary-0123456789\nabcdef"),
    "a list with commas": (ORIGINS, "https://canary.example,https://b.example"),
    "a list of Python": (HOOKS, "['canary-webhook-secret-0123']"),
    "a list that was cut": (HOOKS, '["canary-webhook-secret-0123"'),
    "one text for a list": (HOOKS, "canary-webhook-secret-0123"),
    "YAML": (ISSUERS, "- issuer: https://canary.example"),
    "one object for a list": (ISSUERS, json.dumps(ISSUER)),
    "a duration": ("BROKER_STACKONE__TIMEOUT_SECONDS", "10s"),
    "a size": ("BROKER_HTTP__MAX_BODY_BYTES", "64KB"),
    "a port with its host": ("BROKER_HTTP__PORT", "0.0.0.0:8000"),
    "one underscore": ("BROKER_HTTP_PORT", "8000"),
    "Heroku's name": ("BROKER_DATABASE_URL", "postgres://u:canary@h/d"),
    "an origin for everybody": (ORIGINS, '["*"]'),
    "MySQL": (DATABASE, "mysql://u:canary@h/d"),
    "JDBC": (DATABASE, "jdbc:postgresql://h/d?user=u&password=canary"),
    "Neon with channel binding": (
        DATABASE,
        "postgresql://u:canary@h.neon.tech/d?sslmode=require&channel_binding=require",
    ),
    "Railway without TLS": (DATABASE, "postgresql://u:canary@roundhouse.proxy.rlwy.net:1234/railway"),
    "Prisma's pool": (DATABASE, "postgresql://u:canary@h/d?sslmode=require&connection_limit=1"),
    "Redis with a port that is none": (REDIS, "redis://:canary@h:port/0"),
    "Redis with a database that is none": (REDIS, "redis://:canary@h:6379/main"),
    "Redis cluster": (REDIS, "redis+cluster://:canary@h:6379"),
    "Redis with an unescaped slash": (REDIS, "redis://:canary/secret@h:6379/0"),
    "Redis with unknown words": (REDIS, "redis://:canary@h:6379/0?canary=1"),
    "a proxy by name": (PROXY, "proxy.example.com:3128"),
    "a SOCKS proxy": (PROXY, "socks5://u:canary@proxy.example.com:1080"),
    "a push address inside": (PUSH, ALL[PUSH].replace("hooks.example.com", "10.0.0.7")),
    "a push address of this machine": (PUSH, ALL[PUSH].replace("hooks.example.com", "canary.localhost")),
    "a push address at no port": (PUSH, ALL[PUSH].replace("hooks.example.com", "hooks.example.com:0")),
    "a proxy at no port": (PROXY, "http://u:canary@proxy.example.com:0"),
    "StackOne at no port": ("BROKER_STACKONE__BASE_URL", "https://canary.stackone.com:0"),
    "a key with its scheme": (KEY, "Bearer v1.eu1.canary-0123456789"),
    "a key with a password": (KEY, "v1.eu1.canary-0123456789:"),
    "a key that is not ASCII": (KEY, "v1.eu1.canary-\u00e4-0123456789"),
    "a push address over http": (PUSH, ALL[PUSH].replace("https", "http")),
    "keys over http": (ISSUERS, json.dumps([{**ISSUER, "jwks_uri": "http://canary.example/keys"}])),
}
USABLE = {
    "Heroku": (DATABASE, "postgres://u:canary@ec2.compute-1.amazonaws.com:5432/d1?sslmode=require"),
    "Supabase's pooler": (
        DATABASE,
        "postgresql://postgres.ref:canary@aws.pooler.supabase.com:6543/postgres?sslmode=require&pgbouncer=true",
    ),
    "DigitalOcean": (DATABASE, "postgresql://doadmin:canary@db.ondigitalocean.com:25060/defaultdb?sslmode=require"),
    "Azure": (DATABASE, "postgresql://u:canary@x.postgres.database.azure.com/postgres?ssl=true"),
    "SQLAlchemy": (DATABASE, "postgresql+asyncpg://u:canary@h/d?ssl=require"),
    "a password with everything": (DATABASE, "postgresql://u:canary@:%#[!@h.example:5432/d?sslmode=require"),
    "Upstash": (REDIS, "rediss://default:canary@eu1.upstash.io:6379"),
    "Heroku's Redis": (REDIS, "rediss://:canary@ec2.compute-1.amazonaws.com:6380?ssl_cert_reqs=none"),
    "Redis in the same pod": (REDIS, "redis://localhost"),
    "Render": (DATABASE, "postgresql://u:canary@dpg-1.frankfurt-postgres.render.com/d?sslmode=require"),
    "Aiven": (DATABASE, "postgres://avnadmin:canary@pg.aivencloud.com:12691/defaultdb?sslmode=require"),
    "a socket of Cloud SQL": (DATABASE, "postgresql://u:canary@/d?host=/cloudsql/project:region:instance"),
    "yes": ("BROKER_HTTP__DOCS", "yes"),
    "TRUE": ("BROKER_SYNC__ENABLED", "TRUE"),
    "a number in quotes": ("BROKER_HTTP__PORT", '"8000"'),
    "null": ("BROKER_METRICS__PORT", "null"),
    "origins in capitals": (ORIGINS, '["https://App.Example.COM:443"]'),
    "pretty JSON": (ISSUERS, json.dumps([ISSUER], indent=2)),
    "escaped JSON": (ISSUERS, '"' + json.dumps([ISSUER]).replace('"', '\\"') + '"'),
    "Azure B2C": (
        ISSUERS,
        json.dumps([{**ISSUER, "jwks_uri": "https://t.b2clogin.com/t/discovery/v2.0/keys?p=b2c_1"}]),
    ),
    "an IPv6 proxy": (PROXY, "http://[2001:db8::1]:3128"),
    "HS256": (
        ISSUERS,
        json.dumps([{**ISSUER, "algorithms": ["HS256"], "secrets": ["canary-0123456789-0123456789-0123456789\n"]}]),
    ),
}


def files() -> Iterator[File]:
    """Write the files."""
    yield File("as the documentation says", ALL)
    for around, wrap in AROUND.items():
        yield File(f"everything: {around}", {name: wrap(value) for name, value in ALL.items()})
        for name in (KEY, ISSUERS, DATABASE, PUSH):
            yield File(f"{name}: {around}", {**ALL, name: wrap(ALL[name])})
    for how, encode in ENCODED.items():
        yield File(f"everything: {how}", {}, {name: encode(value) for name, value in ALL.items()})
        secret = {name: ALL[name] for name in (KEY, HOOKS, PEPPER, DATABASE)}
        rest = {name: value for name, value in ALL.items() if name not in secret}
        yield File(f"secrets alone: {how}", rest, {name: encode(value) for name, value in secret.items()})
    for why, (name, value) in UNUSABLE.items():
        yield File(why, {**ALL, name: value}, fine=False)
    for why, (name, value) in USABLE.items():
        yield File(why, {**ALL, name: value})


FILES = list(files())


async def use(settings: Settings) -> None:
    """Do with every setting what serving does, as far as nobody outside is needed."""
    create_app(settings)
    async with open_runtime(settings) as runtime:
        await open_sender(runtime).close()
    for url in (
        *(issuer.jwks_uri or issuer.issuer for issuer in settings.identity.issuers),
        *(destination.url for destination in settings.push.destinations),
    ):
        assert str(httpx2.Request("GET", url).url) == url


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
async def test_what_is_called_fine_works_and_no_mistake_shows_a_secret(
    file: File, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in os.environ if name.startswith("BROKER_")]:
        monkeypatch.delenv(name)
    for name, value in file.variables.items():
        monkeypatch.setenv(name, value)
    for name, raw in file.files.items():
        (tmp_path / name).write_bytes(raw)
    if file.files:
        monkeypatch.setenv("BROKER_SECRETS_DIR", str(tmp_path))
    told = ""
    try:
        settings = load_settings()
    except SettingsError as error:
        told = str(error)
    else:
        await use(settings)
        assert all(secret == secret.strip("\n\r\"' ") for secret in configured_secrets(settings))
        assert settings.stackone.api_key.get_secret_value() == GOOD[KEY]
    assert bool(told) is not file.fine, told
    assert all(line.startswith("BROKER_") for line in told.splitlines())
    shown = told + "".join(capfd.readouterr())
    assert not any(secret in shown for secret in SECRETS)


def test_there_are_a_hundred_of_them() -> None:
    assert len({file.name for file in FILES}) == len(FILES) >= 100
