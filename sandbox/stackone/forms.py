"""Forms of connectors: which fields a session sees, what a submission may hold, what stays secret."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from sandbox.errors import ApiError
from sandbox.stackone.connectors import Connector, FormField

_REDACTED = "__secretvalue:**redacted**"
_SHOWN_TAIL = 4
_LONG_ENOUGH_FOR_A_TAIL = 8

REFUSED = "wrong"
BROKEN = "broken"


@dataclass(frozen=True)
class Submission:
    """A form's values, parted by who may see them again."""

    setup_information: Mapping[str, object]
    secrets: Mapping[str, object]

    @property
    def is_broken(self) -> bool:
        """Tell whether the provider takes these credentials and then fails with them."""
        return BROKEN in self.secrets.values()


def fields_for(connector: Connector, session_type: str) -> tuple[FormField, ...]:
    """Return the fields whose condition holds."""
    return tuple(item for item in connector.fields if item.only_for in (None, session_type))


def connector_config(connector: Connector, session_type: str) -> dict[str, object]:
    """Write the answer of GET /hub/connectors/{integration_id}."""
    config: dict[str, object] = {
        "key": connector.authentication_key,
        "name": connector.name,
        "type": connector.authentication_key,
        "configFields": [item.model_dump(exclude_none=True) for item in fields_for(connector, session_type)],
        "configNotices": [],
        "assets": {"icon": connector.logo},
        "support": {},
    }
    if connector.grant_type is not None:
        config["grantType"] = connector.grant_type
    return {"config": config, "hub_settings": {"configured_webhook_events": {}, "project_settings": {}}}


def submit(
    connector: Connector, session_type: str, values: Mapping[str, object], kept: Mapping[str, object]
) -> Submission:
    """Check a submitted form on top of what is `kept` already, as the provider would. Raises ApiError 400."""
    fields = fields_for(connector, session_type)
    given = {item.key: values.get(item.key, kept.get(item.key)) for item in fields}
    given = {key: value for key, value in given.items() if value not in (None, "")}
    for item in fields:
        _check(item, given.get(item.key))
    secret_keys = {item.key for item in fields if item.secret}
    secrets = {key: value for key, value in given.items() if key in secret_keys}
    if REFUSED in secrets.values():
        raise ApiError(
            400, "Invalid credentials", extra={"provider_response": f"{connector.name} refused these credentials"}
        )
    return Submission({key: value for key, value in given.items() if key not in secret_keys}, secrets)


def redacted(secrets: Mapping[str, object]) -> dict[str, str]:
    """Write secrets as the Hub shows them: that they are there, and how the long ones end."""
    return {key: _REDACTED + _tail(str(value)) for key, value in secrets.items()}


def _tail(secret: str) -> str:
    return secret[-_SHOWN_TAIL:] if len(secret) >= _LONG_ENOUGH_FOR_A_TAIL else ""


def _check(item: FormField, value: object) -> None:
    if value is None:
        if item.required:
            raise ApiError(400, f"{item.label} is required")
        return
    if not isinstance(value, str | int | float):
        raise ApiError(400, f"{item.label} must be text")
    if item.options and value not in [option["value"] for option in item.options]:
        raise ApiError(400, f"{item.label} is not one of the choices")
    if item.validation and re.fullmatch(item.validation["pattern"], str(value)) is None:
        raise ApiError(400, item.validation["error"])
