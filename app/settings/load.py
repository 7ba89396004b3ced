"""The only reader of the environment.

`load_settings` reports every mistake at once: each section is validated by itself, then asked what in it would be
unsafe in this environment, so that an operator fixes one list instead of restarting once per mistake.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict
from pydantic_settings.sources.utils import parse_env_vars

from app.settings.database import DatabaseSettings
from app.settings.identity import IdentitySettings, ServiceKeySettings
from app.settings.limits import LimitSettings
from app.settings.push import PushSettings
from app.settings.section import Environment, Section
from app.settings.serving import HttpSettings, LogSettings, MetricsSettings
from app.settings.stackone import SessionSettings, StackOneSettings, SyncSettings
from app.settings.tls import TlsSettings

PREFIX = "BROKER_"
SECRETS_DIR = "BROKER_SECRETS_DIR"
_NULL = "null"


class SettingsError(Exception):
    """The settings cannot be used; `mistakes` has a line for each reason."""

    def __init__(self, mistakes: Sequence[str]) -> None:
        """Keep all mistakes; their text never holds a value."""
        super().__init__("\n".join(mistakes))
        self.mistakes = tuple(mistakes)


class Settings(BaseSettings):
    """Every setting. Built once by `load_settings` and passed on; nothing else reads the environment."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        env_parse_none_str=_NULL,
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
    stackone: StackOneSettings
    database: DatabaseSettings
    tls: TlsSettings = Field(default=TlsSettings())
    identity: IdentitySettings
    service_keys: ServiceKeySettings
    sessions: SessionSettings = Field(default=SessionSettings())
    sync: SyncSettings = Field(default=SyncSettings())
    push: PushSettings = Field(default=PushSettings())
    limits: LimitSettings = Field(default=LimitSettings())
    policy_file: Path | None = Field(
        default=None, description="TOML file that says who may open what; without it every owner may open everything."
    )


@dataclass(frozen=True)
class _Checked:
    value: Any
    mistakes: tuple[str, ...]


def _environment_name(*parts: str | int) -> str:
    """Write a location as the variable that an operator sets: ("http", "port") -> BROKER_HTTP__PORT."""
    name = PREFIX + "__".join(str(part).upper() for part in parts if not isinstance(part, int))
    return name + "".join(f"[{part}]" for part in parts if isinstance(part, int))


_WORDING = {
    "missing": "is required",
    "extra_forbidden": "no such setting; see docs/configuration.md",
    "tuple_type": 'must be a JSON list, such as ["..."]',
    "model_type": "must be a JSON object",
    "model_attributes_type": "must be a JSON object",
}


def _wording(problem: ErrorDetails) -> str:
    return _WORDING.get(problem["type"]) or problem["msg"].removeprefix("Value error, ")


def _check_field(name: str, raw: dict[str, Any]) -> _Checked:
    field = Settings.model_fields[name]
    if name not in raw and not field.is_required():
        return _Checked(field.get_default(call_default_factory=True), ())
    annotation = cast("Any", field.annotation)
    try:
        return _Checked(TypeAdapter(annotation).validate_python(raw.get(name, {})), ())
    except ValidationError as error:
        return _Checked(
            None,
            tuple(
                f"{_environment_name(name, *problem['loc'])}: {_wording(problem)}"
                for problem in error.errors(include_input=False, include_url=False, include_context=False)
            ),
        )


class _Variables(EnvSettingsSource):
    """The environment, and below it the files of BROKER_SECRETS_DIR, each named like its variable."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        super().__init__(Settings)
        self.env_vars = parse_env_vars(variables, parse_none_str=_NULL)

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        """Leave text that is no JSON as it is: the field's own check then says so, with the variable's name."""
        try:
            return super().decode_complex_value(field_name, field, value)
        except ValueError:
            return value


def _variables() -> dict[str, str]:
    """Collect every BROKER_ variable. Raises SettingsError where BROKER_SECRETS_DIR has no files."""
    variables: dict[str, str] = {}
    directory = os.environ.get(SECRETS_DIR)
    if directory is not None:
        files = sorted(Path(directory).glob(f"{PREFIX}*")) if Path(directory).is_dir() else []
        if not files:
            raise SettingsError([f"{SECRETS_DIR}: no folder with files named like {PREFIX}DATABASE__URL"])
        variables = {path.name: path.read_text(encoding="utf-8").strip() for path in files}
    variables |= {name: value for name, value in os.environ.items() if name.startswith(PREFIX)}
    variables.pop(SECRETS_DIR, None)
    return variables


def _unknown(variables: Mapping[str, str]) -> list[str]:
    known = {name.upper() for name in Settings.model_fields}
    return [
        f"{name}: no such setting; see docs/configuration.md"
        for name in variables
        if name.removeprefix(PREFIX).split("__")[0] not in known
    ]


def _raw(variables: Mapping[str, str]) -> dict[str, Any]:
    raw = _Variables(variables)()
    # One authority for everything, unless the database has one of its own.
    database, tls = raw.get("database"), raw.get("tls")
    if isinstance(database, dict) and isinstance(tls, dict) and tls.get("ca_file"):
        database.setdefault("ca_file", tls["ca_file"])
    return raw


def load_database_settings() -> DatabaseSettings:
    """Read the database section alone: migrations need no other secret. Raises SettingsError with all mistakes."""
    checked = _check_field("database", _raw(_variables()))
    if checked.mistakes:
        raise SettingsError(checked.mistakes)
    return cast("DatabaseSettings", checked.value)


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
    variables = _variables()
    mistakes = _unknown(variables)
    raw = _raw(variables)
    checked = {name: _check_field(name, raw) for name in Settings.model_fields}
    for outcome in checked.values():
        mistakes.extend(outcome.mistakes)
    environment: Environment = checked["environment"].value or Environment.PRODUCTION
    for name, outcome in checked.items():
        if isinstance(outcome.value, Section):
            mistakes.extend(
                f"{_environment_name(name)}__{setting}: {reason}"
                for setting, reason in outcome.value.unsafe(environment)
            )
    policy_file = checked["policy_file"].value
    if policy_file is not None and not policy_file.is_file():
        mistakes.append(f"{PREFIX}POLICY_FILE: the file does not exist")
    if mistakes:
        raise SettingsError(mistakes)
    return Settings.model_construct(**{name: outcome.value for name, outcome in checked.items()})
