"""A database's URL as hosts hand it out: understood, or refused by name, and never shown."""

from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from app.settings.database import DatabaseSettings
from app.settings.database_url import (
    Pooler,
    PostgresqlUrl,
    SqliteUrl,
    SslMode,
    UrlMistake,
    parse_database_url,
)
from app.settings.section import Environment


def parsed(text: str) -> PostgresqlUrl:
    url = parse_database_url(text)
    assert isinstance(url, PostgresqlUrl)
    return url


# What each host's console shows, its names and passwords changed.
HOSTS = {
    "Heroku": "postgres://u3ab:p9ff@ec2-3-210-1-2.compute-1.amazonaws.com:5432/d8kq",
    "Neon": "postgresql://owner:npg_Ab12@ep-cool-1-pooler.eu-central-1.aws.neon.tech/neondb?sslmode=require",
    "Supabase, direct": "postgresql://postgres:pw@db.abcdefgh.supabase.co:5432/postgres",
    "Supabase, pooler": "postgresql://postgres.abcdefgh:pw@aws-0-eu-central-1.pooler.supabase.com:6543/postgres?pgbouncer=true",
    "RDS": "postgresql://broker:pw@x.c9akciq32.eu-west-1.rds.amazonaws.com/app?sslmode=verify-full&sslrootcert=/rds.pem",
    "Render": "postgresql://broker:pw@dpg-abc-a.frankfurt-postgres.render.com/app_x1y2",
    "Railway": "postgresql://postgres:pw@containers-us-west-1.railway.app:7432/railway",
    "Fly": "postgres://app:pw@app-db.flycast:5432/app?sslmode=disable",
    "Azure": "postgresql://broker@server:pw@server.postgres.database.azure.com:5432/app?sslmode=require",
    "DigitalOcean": "postgresql://doadmin:AVNS_x-1@db-do-user-1-0.b.db.ondigitalocean.com:25060/defaultdb?sslmode=require",
    "Aiven": "postgres://avnadmin:AVNS_x@pg-1-x.aivencloud.com:11691/defaultdb?sslmode=require",
    "Crunchy": "postgres://application:pw@p.abc.db.postgresbridge.com:5432/postgres",
    "Cloud SQL": "postgresql://broker:pw@/app?host=/cloudsql/project:region:instance",
    "Cloud SQL, as Prisma writes it": "postgresql://broker:pw@localhost/app?host=/cloudsql/project:region:instance",
    "Neon, an old client": "postgresql://owner:pw@ep-cool-1.neon.tech/neondb?sslmode=require&options=endpoint%3Dep-cool-1",
    "link-local": "postgresql://broker:pw@[fe80::1%25eth0]:5433/app",
    "a form that left fields empty": "postgresql://broker:pw@h/app?sslmode=require&sslrootcert=&options=&application_name=",
    "CockroachDB": "postgresql://broker:pw@free-tier.gcp.cockroachlabs.cloud:26257/app?sslmode=verify-full",
    "Patroni": "postgresql://broker:pw@pg1:5432,pg2:5433/app?target_session_attrs=read-write&connect_timeout=5",
    "Neon, for node-postgres": "postgres://owner:pw@ep-1.neon.tech/neondb?sslmode=require&uselibpqcompat=true&keepalives=1",
    "a folder of sockets as the host": "postgresql://broker:pw@%2Fcloudsql%2Fproject%3Aregion%3Ainstance/app",
    "IPv6": "postgresql://broker:pw@[2001:db8::1]:5433/app",
}


@pytest.mark.parametrize("name", HOSTS)
def test_what_hosts_hand_out_is_understood(name: str) -> None:
    url = parsed(HOSTS[name])
    assert url.user
    assert url.password
    assert url.database
    assert all(host for host, _ in url.hosts)


def test_hosts_ports_and_words_are_where_they_belong() -> None:
    assert parsed(HOSTS["Patroni"]).hosts == (("pg1", 5432), ("pg2", 5433))
    assert parsed(HOSTS["Patroni"]).target_session_attrs == "read-write"
    assert parsed(HOSTS["Patroni"]).connect_timeout == 5
    assert parsed(HOSTS["Supabase, pooler"]).pooler is Pooler.TRANSACTION
    assert parsed(HOSTS["Cloud SQL"]).hosts == (("/cloudsql/project:region:instance", 5432),)
    assert parsed(HOSTS["Cloud SQL, as Prisma writes it"]).hosts == parsed(HOSTS["Cloud SQL"]).hosts
    assert parsed(HOSTS["link-local"]).hosts == (("fe80::1%eth0", 5433),)
    assert parsed(HOSTS["a form that left fields empty"]).sslrootcert is None
    assert parsed(HOSTS["IPv6"]).hosts == (("2001:db8::1", 5433),)
    assert parsed(HOSTS["Azure"]).user == "broker@server"
    assert parsed("postgres://host?options=-c%20geqo%3Doff&user=me%40there").user == "me@there"
    assert parsed("postgresql:///app?host=a,b&port=1,2").hosts == (("a", 1), ("b", 2))
    assert parsed("postgresql://u:p@h/d?sslnegotiation=direct&sslmode=require").is_tls_direct


@pytest.mark.parametrize(
    "password",
    [
        "p@ss", "p:ss", "p%ss", "100%", "p#ss", "p[ss", "p]ss", "p/ss", "p?ss", "p@ss/w?rd#1", "a@b:c@d", "p&ss=x",
        "p@h/d?x=y", "ünï", "p ss", "@", "://", "%zz", "p@localhost",
    ],
)  # fmt: skip
def test_a_password_may_be_written_as_it_is(password: str) -> None:
    url = parsed(f"postgresql://broker:{password}@db.example.com:5433/app?sslmode=require")
    assert (url.user, url.password) == ("broker", password)
    assert (url.hosts, url.database, url.sslmode) == ((("db.example.com", 5433),), "app", SslMode.REQUIRE)
    assert password not in repr(url) or len(password) < 2


def test_an_escaped_password_is_decoded() -> None:
    assert parsed("postgresql://u:p%40%2F%3F%23%25@h/d").password == "p@/?#%"


CANARY = "canaryhalf"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"mysql://u:{CANARY}@h/d", "must begin with"),
        (f"postgresql://u:{CANARY}@h/d?sslmode=on", "sslmode: must be one of disable"),
        (f"postgresql://u:{CANARY}@h/d?channel_binding=require", "channel_binding: the driver has none"),
        (f"postgresql://u:{CANARY}@h/d?sslmode=require&sslmode=disable", "sslmode: stands there twice"),
        (f"postgresql://h/d?password=x&password={CANARY}", "a word after the question mark: stands there twice"),
        (f"postgresql://u:{CANARY}@h/d?unheard_of=", "unheard_of: the broker does not know"),
        (f"jdbc:postgresql://h/d?user=u&password={CANARY}&ssl=true", "leave jdbc: out"),
        (f"host=h dbname=d user=u password={CANARY}", "write host=... dbname=... as a URL"),
        (f"postgresql://u:{CANARY}@h/d?sslmode=no-verify", "sslmode: write require instead"),
        (f"postgresql://u:{CANARY}@h/d?ssl_mode=require", "ssl_mode: write sslmode instead"),
        (f"postgresql://u:{CANARY}@h/d?keepalives=1&keepalives_idle=30", "keepalives_idle: leave it out"),
        (f"postgresql://u:{CANARY}@h/d?ssl_min_protocol_version=TLSv1.3", "TLSv1.2 is the least"),
        (f"postgresql://u:{CANARY}@h/d?connection_limit=1", "connection_limit: set BROKER_DATABASE__POOL_SIZE"),
        (f"postgresql://u:{CANARY}@h/d?schema=public", "schema: write options"),
        (f"postgresql://u:{CANARY}@h/d?target_session_attrs=standby", "target_session_attrs: the broker writes"),
        (f"postgresql://u:{CANARY}@h/d?sslnegotiation=maybe", "sslnegotiation: must be"),
        (f"postgresql://u:{CANARY}@h/d?connect_timeout=soon", "connect_timeout: must be a number"),
        (f"postgresql://u:{CANARY}@h/d?pgbouncer=maybe", "pgbouncer: must be true or false"),
        (f"postgresql://u:{CANARY}@h/d?unheard_of=1", "unheard_of: the broker does not know"),
        (f"postgresql://u:{CANARY}@h/d?gssencmode=require", "gssencmode: the driver encrypts with TLS"),
        (f"postgresql://u:{CANARY}@h/d?sslkey=/x", "sslkey, sslpassword: are for a certificate that nothing names"),
        (f"postgresql://u:p@h/d?sslpassword={CANARY}", "sslkey, sslpassword: are for a certificate"),
        (f"postgresql://u:{CANARY}@h/d?gssdelegation=1", "gssdelegation: the driver is not used with Kerberos"),
        (f"postgresql://u:{CANARY}@h/d?keepalives_idle=30", "keepalives_idle: leave it out: a connection that was"),
        (f"postgresql://u:{CANARY}@h/d?tcp_user_timeout=9", "tcp_user_timeout: leave it out: a connection that was"),
        (f"postgresql://u:{CANARY}@h/d?krbsrvname=x", "krbsrvname: the driver is not used with Kerberos"),
        (f"postgresql://u:{CANARY}@h/d?requirepeer=x", "requirepeer: leave it out, and let nobody else"),
        (f"postgresql://u:{CANARY}@h/d?sslkeylogfile=/x", "sslkeylogfile: keys are never written down"),
        (f"postgresql://u:{CANARY}@h/d?scram_client_key={CANARY}", "scram_client_key: put the password into"),
        (f"postgresql://u:{CANARY}@h/d?ssl_min_protocol_version=TLSv1.3", "ssl_min_protocol_version: TLSv1.2 is"),
        (f"postgresql://u:{CANARY}@h/d?ssl_max_protocol_version=TLSv1.2", "ssl_max_protocol_version: the newest"),
        (f"postgresql://u:{CANARY}@h/d?sslcertmode=disable", "sslcertmode: sslcert is sent if"),
        (f"postgresql://u:{CANARY}@h/d?max_protocol_version=3.2", "max_protocol_version: the driver speaks 3.0"),
        (f"postgresql://u:{CANARY}@h/d?options=-c%20{CANARY}", "options: -c and -- must be followed by NAME=VALUE"),
        (f"postgresql://u:{CANARY}@h/d?options=-c", "options: -c and -- must be followed by NAME=VALUE"),
        (f"postgresql://u:{CANARY}@h/d?options=-cgeqo%3Doff+--{CANARY}", "options: -c and -- must be"),
        (
            f"postgresql://u:{CANARY}@h/d?options=-c%20default_transaction_read_only%3Don",
            "options: the broker writes",
        ),
        (f"postgresql://u:{CANARY}@h:{CANARY}/d", "cannot be understood"),
        (f"postgresql://u:{CANARY}@h:99999/d", "the port is no number"),
        (f"postgresql://u:{CANARY}", "cannot be understood"),
        (f"postgresql://u:p/{CANARY}", "cannot be understood"),
        (f"postgresql://h/d?password=x&{CANARY}=y", "a word after the question mark"),
        (f"postgresql://h/d?{CANARY}", "no NAME=VALUE"),
        (f"sqlite:///x.db?mode={CANARY}", "mode: SQLite's URL takes no words"),
        (f"sqlite://{CANARY}", "must begin with sqlite:///"),
    ],
)
def test_what_is_not_understood_is_refused_by_name_and_shows_nothing(text: str, said: str) -> None:
    with pytest.raises(UrlMistake) as refused:
        parse_database_url(text)
    assert said in str(refused.value)
    assert CANARY not in str(refused.value)
    with pytest.raises(ValidationError) as invalid:
        DatabaseSettings(url=SecretStr(text))
    assert CANARY not in str(invalid.value)


@pytest.mark.parametrize(
    "words",
    [
        "ssl_min_protocol_version=TLSv1.2", "ssl_max_protocol_version=TLSv1.3", "uselibpqcompat=true",
        "sslcertmode=allow", "sslcert=&sslkey=",
        "gssdelegation=0", "max_protocol_version=latest", "options=-c%20search_path%3Da%5C%20b,c", "options=-cgeqo=off",
        "options=-c++geqo=off+--work-mem=1MB", "options=endpoint%3Dep-1",
        "options=project%3Dep-1%20-c%20a.b%3Dc%5C%20--d",
        "options=-c%20default_transaction_read_only%3Doff",
    ],
)  # fmt: skip
def test_words_that_ask_for_what_is_so_are_understood(words: str) -> None:
    assert parsed(f"postgresql://u:p@h/d?sslmode=require&{words}").sslmode is SslMode.REQUIRE


def mistakes(text: str, environment: Environment = Environment.PRODUCTION, **changes: object) -> list[str]:
    settings = DatabaseSettings.model_validate({"url": text, **changes})
    return [f"{name}: {reason}" for name, reason in settings.unsafe(environment)]


@pytest.mark.parametrize(
    ("text", "is_refused"),
    [
        ("postgresql://u:p@db.example.com/d", True),
        ("postgresql://u:p@db.example.com/d?sslmode=prefer", True),
        ("postgresql://u:p@db.example.com/d?sslmode=allow", True),
        ("postgresql://u:p@localhost,db.example.com/d", True),
        ("postgresql://u:p@db.example.com/d?sslmode=disable", False),
        ("postgresql://u:p@db.example.com/d?sslmode=require", False),
        ("postgresql://u:p@db.example.com/d?sslmode=verify-full", False),
        ("postgresql://u:p@db.example.com/d?ssl=true", False),
        ("postgresql://u:p@127.0.0.1/d", False),
        ("postgresql://u:p@[::1]/d", False),
        ("postgresql:///d?host=/run/postgresql", False),
    ],
)
def test_production_wants_tls_to_another_machine_or_a_word_that_says_not(text: str, is_refused: bool) -> None:  # noqa: FBT001
    assert any("TLS" in mistake for mistake in mistakes(text)) is is_refused
    assert mistakes(text, Environment.DEVELOPMENT) == []


def test_what_cannot_work_is_found_before_it_is_tried(tmp_path: Path) -> None:
    missing, empty = tmp_path / "missing.pem", tmp_path / "empty.pem"
    empty.touch()
    tls = "postgresql://u:p@h/d?sslmode=verify-full"
    assert mistakes(f"{tls}&sslrootcert={missing}") == ["URL: sslrootcert: the file does not exist"]
    assert mistakes(f"{tls}&sslrootcert={empty}") == [
        "URL: sslrootcert: holds no certificate or key in PEM that fit each other"
    ]
    assert mistakes(f"{tls}&sslcert={missing}") == ["URL: sslcert, sslkey: the file does not exist"]
    assert mistakes(tls, ca_file=missing) == ["CA_FILE: the file does not exist"]
    assert "a pooler does not pass them on" in mistakes(f"{tls}&pgbouncer=true&options=-c%20geqo%3Doff")[0]
    assert "hides its servers" in mistakes(f"{tls}&pgbouncer=true&target_session_attrs=primary")[0]
    assert "needs sslmode" in mistakes("postgresql://u:p@localhost/d?sslnegotiation=direct")[0]
    assert "folder" in mistakes(f"sqlite:///{tmp_path}/no/broker.db")[0]
    assert mistakes(f"sqlite:///{tmp_path}/broker.db") == []


def test_the_setting_wins_over_the_word() -> None:
    settings = DatabaseSettings.model_validate({"url": "postgresql://u:p@h/d?pgbouncer=true", "pooler": "session"})
    assert settings.pooled_by is Pooler.SESSION
    assert DatabaseSettings.model_validate({"url": "sqlite:///x.db"}).target == SqliteUrl("x.db")


def test_the_systems_authorities_are_nothing_without_the_name() -> None:
    url = "postgresql://broker:pw@database.example/app?sslrootcert=system"
    assert parsed(url).sslmode is SslMode.VERIFY_FULL
    assert parsed(f"{url}&sslmode=verify-full").sslmode is SslMode.VERIFY_FULL
    for mode in ("disable", "prefer", "require", "verify-ca"):
        with pytest.raises(UrlMistake, match="sslrootcert: system goes with sslmode=verify-full"):
            parsed(f"{url}&sslmode={mode}")
