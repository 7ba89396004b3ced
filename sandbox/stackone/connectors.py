"""The auth configs of the sandbox's project: the connectors, and the fields that their forms ask for."""

import base64
from dataclasses import replace
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.dataclasses import dataclass

_MADE_AT = "2026-01-05T08:00:00.000Z"


class FormField(BaseModel):
    """One input of a connector's form, under the Hub's names."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: str
    label: str
    type: Literal["text", "password", "number", "select", "text_area"] = "text"
    required: bool = True
    secret: bool = False
    readOnly: bool = False  # noqa: N815 - the Hub's name
    placeholder: str | None = None
    options: list[dict[str, str]] | None = None
    validation: dict[str, str] | None = None
    # The Hub evaluates no conditions: whether a field is shown is decided here, by the session's type.
    only_for: Literal["production", "test"] | None = Field(default=None, exclude=True)


@dataclass(frozen=True, kw_only=True)
class Connector:
    """One auth config of the project: a provider's connector, and how its accounts are connected."""

    integration_id: str
    provider: str
    name: str
    category: str
    colour: str
    fields: tuple[FormField, ...] = ()
    grant_type: Literal["authorization_code", "client_credentials"] | None = None
    active: bool = True
    default: bool = True
    version: str = "1.0.0"
    environment: str = "production"
    models: tuple[str, ...] = ()

    @property
    def uses_popup(self) -> bool:
        """Tell whether linking goes through the provider's own page."""
        return self.grant_type == "authorization_code"

    @property
    def authentication_key(self) -> str:
        """Return the key of the connector's way to authenticate."""
        return "oauth2" if self.grant_type else "custom"

    @property
    def logo(self) -> str:
        """Return an svg as a data: URL, so that no request leaves for it."""
        svg = (
            '<svg xmlns="http://www.w3.org/2000/svg" width="40" height="40"><rect width="40" height="40" rx="8"'
            f' fill="{self.colour}"/><text x="20" y="27" font-size="20" text-anchor="middle" fill="#fff"'
            f' font-family="sans-serif">{self.name[0]}</text></svg>'
        )
        return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()

    def for_the_hub(self) -> dict[str, object]:
        """Write the row of GET /hub/connectors."""
        return {
            "active": self.active,
            "name": self.name,
            "provider": self.provider,
            "type": self.category,
            "version": self.version,
            "authentication_config_key": self.authentication_key,
            "environment": self.environment,
            "integration_id": self.integration_id,
            "logo_url": self.logo,
        }

    def for_the_backend(self) -> dict[str, object]:
        """Write the row of GET /auth_configs."""
        return {
            "id": self.integration_id,
            "name": self.integration_id.replace("_", " "),
            "connector_key": self.provider,
            "connector_label": self.name,
            "connector_version": self.version,
            "connector_pinned_version": None,
            "connector_owner": "stackone",
            "logo_url": self.logo,
            "categories": [self.category],
            "active": self.active,
            "default": self.default,
            "release_stage": "ga",
            "environment": self.environment,
            "authentication_config_key": self.authentication_key,
            "authentication_config_label": "OAuth 2.0" if self.grant_type else "Credentials",
            "created_at": _MADE_AT,
            "updated_at": _MADE_AT,
        }


def _secret(key: str, label: str, **more: Any) -> FormField:
    return FormField(key=key, label=label, type="password", secret=True, **more)


_BAMBOOHR = Connector(
    integration_id="bamboohr_profile",
    provider="bamboohr",
    name="BambooHR",
    category="hris",
    colour="#5a9a1f",
    models=("employees", "time_off"),
    fields=(
        FormField(
            key="subdomain",
            label="Subdomain",
            placeholder="your-company",
            validation={
                "type": "html-pattern",
                "pattern": "^[a-z0-9][a-z0-9-]*$",
                "error": "Only lower-case letters, digits and dashes",
            },
        ),
        _secret("api_key", "API key", placeholder="wrong = refused, broken = linked with an error"),
        FormField(
            key="region",
            label="Region",
            type="select",
            options=[{"value": "eu", "label": "Europe"}, {"value": "us", "label": "United States"}],
        ),
        FormField(key="note", label="Note", type="text_area", required=False),
        FormField(key="trial_code", label="Trial code", required=False, only_for="test"),
    ),
)

_WORKDAY = Connector(
    integration_id="workday_profile",
    provider="workday",
    name="Workday",
    category="hris",
    colour="#0b6cb7",
    models=("employees", "time_off"),
    fields=(
        FormField(key="tenant", label="Tenant"),
        FormField(key="username", label="Integration user"),
        _secret("password", "Password"),
    ),
)

_SALESFORCE = Connector(
    integration_id="salesforce_profile",
    provider="salesforce",
    name="Salesforce",
    category="crm",
    colour="#1b96d6",
    grant_type="authorization_code",
    models=("contacts",),
    fields=(FormField(key="my_domain", label="My Domain", required=False, placeholder="optional"),),
)

_SAP_SUCCESSFACTORS = Connector(
    integration_id="sap_successfactors_profile",
    provider="sap_successfactors",
    name="SAP SuccessFactors",
    category="hris",
    colour="#0a6ed1",
    grant_type="client_credentials",
    models=("employees", "time_off"),
    fields=(
        FormField(key="company_id", label="Company id"),
        FormField(key="client_id", label="Client id"),
        _secret("client_secret", "Client secret"),
    ),
)

_GREENHOUSE = Connector(
    integration_id="greenhouse_profile",
    provider="greenhouse",
    name="Greenhouse",
    category="ats",
    colour="#24a47f",
    active=False,
    models=("candidates",),
)

CONNECTORS: tuple[Connector, ...] = (_BAMBOOHR, _WORKDAY, _SALESFORCE, _SAP_SUCCESSFACTORS, _GREENHOUSE)
# Of the same providers, and used only by a session that names them.
FURTHER_PROFILES: tuple[Connector, ...] = (
    replace(_BAMBOOHR, integration_id="bamboohr_second_profile", default=False),
    replace(_WORKDAY, integration_id="workday_retired_profile", default=False, active=False),
    replace(_SALESFORCE, integration_id="salesforce_test_profile", default=False, environment="sandbox"),
)


def connector_for(provider: str) -> Connector | None:
    """Return the default connector of a provider."""
    return next((connector for connector in CONNECTORS if connector.provider == provider), None)
