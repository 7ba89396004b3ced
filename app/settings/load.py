"""The only reader of the environment.

`load_settings` reports every mistake at once: each section is validated by itself, then asked what in it would be
unsafe in this environment, so that an operator fixes one list instead of restarting once per mistake.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from pydantic import Field, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.errors import SettingsError
from app.settings.database import DatabaseSettings
from app.settings.database_tls import authorities_mistake
from app.settings.identity import IdentitySettings, ServiceKeySettings
from app.settings.invitations import InvitationSettings
from app.settings.limits import LimitSettings
from app.settings.push import PushSettings
from app.settings.repair import RepairSettings
from app.settings.section import Environment, Section
from app.settings.serving import AuditSettings, HttpSettings, LogSettings, MetricsSettings
from app.settings.sources import NULL, PREFIX, SECRETS_DIR, parsed, read_variables
from app.settings.stackone import SessionSettings, StackOneSettings, SyncSettings
from app.settings.tls import TlsSettings
from app.settings.traces import TracesSettings
from app.settings.user_tokens import UserTokenSettings


class Settings(BaseSettings):
    """Every setting. Built once by `load_settings` and passed on; nothing else reads the environment."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        env_parse_none_str=NULL,
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
    )

    environment: Environment = Field(
        default=Environment.PRODUCTION,
        description="production, or development: loopback only, plain http there, no real keys.",
    )
    http: HttpSettings = Field(default=HttpSettings())
    metrics: MetricsSettings = Field(default=MetricsSettings())
    logs: LogSettings = Field(default=LogSettings())
    audit: AuditSettings = Field(default=AuditSettings())
    traces: TracesSettings = Field(default=TracesSettings())
    stackone: StackOneSettings
    database: DatabaseSettings
    tls: TlsSettings = Field(default=TlsSettings())
    identity: IdentitySettings
    service_keys: ServiceKeySettings
    user_tokens: UserTokenSettings = Field(default=UserTokenSettings())
    sessions: SessionSettings = Field(default=SessionSettings())
    sync: SyncSettings = Field(default=SyncSettings())
    push: PushSettings = Field(default=PushSettings())
    repair: RepairSettings = Field(default=RepairSettings())
    invitations: InvitationSettings = Field(default=InvitationSettings())
    limits: LimitSettings = Field(default=LimitSettings())
    policy_file: Path | None = Field(
        examples=["/etc/connect-broker/policy.toml"],
        default=None,
        description="TOML file that says who may open what; without it every owner may open everything.",
    )


def _environment_name(*parts: str | int) -> str:
    """Write a location as the variable that an operator sets: ("http", "port") -> BROKER_HTTP__PORT."""
    name = PREFIX + "__".join(str(part).upper() for part in parts if not isinstance(part, int))
    return name + "".join(f"[{part}]" for part in parts if isinstance(part, int))


_WORDING = {
    "missing": "is required",
    "extra_forbidden": "no such setting; see docs/configuration.md",
    "too_short": "must not be empty",
    "tuple_type": 'must be a JSON list, such as ["..."]',
    "model_type": "must be a JSON object",
    "model_attributes_type": "must be a JSON object",
}


def _follows_from_others(problem: ErrorDetails, problems: Sequence[ErrorDetails]) -> bool:
    """Tell whether a list only counts as too short because its entries have mistakes, which are told."""
    place = problem["loc"]
    return problem["type"] == "too_short" and any(
        len(other["loc"]) > len(place) and other["loc"][: len(place)] == place for other in problems
    )


def _wording(problem: ErrorDetails) -> str:
    return _WORDING.get(problem["type"]) or problem["msg"].removeprefix("Value error, ")


class _Reading:
    """One reading of the environment, and every mistake found in it so far."""

    def __init__(self) -> None:
        self.shares_authority = False
        variables, self._refused = read_variables(os.environ)
        self.mistakes = [f"{name}: {reason}" for name, reason in self._refused.items()]
        known = {name.upper() for name in Settings.model_fields}
        self.unknown = [name for name in variables if name.removeprefix(PREFIX).split("__")[0] not in known]
        self._raw = parsed(Settings, variables)
        # One authority for everything, unless the database has one of its own.
        database, tls = self._raw.get("database"), self._raw.get("tls")
        if isinstance(database, dict) and isinstance(tls, dict) and tls.get("ca_file"):
            self.shares_authority = "ca_file" not in database
            database.setdefault("ca_file", tls["ca_file"])

    def check(self, name: str) -> Any:
        """Return the value of one field of Settings; None, and a mistake more, if it has none."""
        field = Settings.model_fields[name]
        if name not in self._raw and not field.is_required():
            return field.get_default(call_default_factory=True)
        try:
            return TypeAdapter(cast("Any", field.annotation)).validate_python(self._raw.get(name, {}))
        except ValidationError as error:
            problems = error.errors(include_input=False, include_url=False)
            for problem in problems:
                if _follows_from_others(problem, problems):
                    continue
                variable = _environment_name(name, *problem["loc"])
                if variable not in self._refused:
                    self.mistakes.append(f"{variable}: {_wording(problem)}")
            return None

    def raise_mistakes(self) -> None:
        """Raise SettingsError with all mistakes, if there are any."""
        if self.mistakes:
            raise SettingsError(self.mistakes)


def load_database_settings() -> DatabaseSettings:
    """Read the database section alone: migrations need no other secret. Raises SettingsError with all mistakes."""
    reading = _Reading()
    reading.mistakes = [
        mistake for mistake in reading.mistakes if mistake.startswith((f"{PREFIX}DATABASE", SECRETS_DIR))
    ]
    database = reading.check("database")
    reading.raise_mistakes()
    return cast("DatabaseSettings", database)


def reload_database_settings() -> DatabaseSettings | None:
    """Read the database section again, for a password that was changed; None where nothing can have changed it.

    Only files change under a running process: without BROKER_SECRETS_DIR there is nothing to read again.
    """
    if SECRETS_DIR not in os.environ:
        return None
    try:
        return load_database_settings()
    except (SettingsError, OSError):
        # Half written just now. The next connection asks again.
        return None


def load_settings() -> Settings:
    """Read and check every setting.

    Raises SettingsError with all mistakes, each naming its variable and never its value.
    """
    reading = _Reading()
    reading.mistakes.extend(f"{name}: {_WORDING['extra_forbidden']}" for name in reading.unknown)
    values = {name: reading.check(name) for name in Settings.model_fields}
    environment: Environment = values["environment"] or Environment.PRODUCTION
    for name, section in values.items():
        if isinstance(section, Section):
            reading.mistakes.extend(
                f"{_environment_name(name)}__{setting}: {reason}" for setting, reason in section.unsafe(environment)
            )
    if reading.shares_authority:
        # It is told once, under the name that it was given.
        own = f"{PREFIX}DATABASE__CA_FILE:"
        reading.mistakes = [mistake for mistake in reading.mistakes if not mistake.startswith(own)]
    if (authorities := os.environ.get("SSL_CERT_FILE")) and (reason := authorities_mistake(Path(authorities))):
        reading.mistakes.append(f"SSL_CERT_FILE: {reason}")
    http, metrics = values["http"], values["metrics"]
    if http and metrics and http.port and http.port == metrics.port:
        reading.mistakes.append(f"{PREFIX}METRICS__PORT: is {PREFIX}HTTP__PORT as well; each needs one of its own")
    if values["policy_file"] is not None and not values["policy_file"].is_file():
        reading.mistakes.append(f"{PREFIX}POLICY_FILE: the file does not exist")
    reading.raise_mistakes()
    return Settings.model_construct(**values)
