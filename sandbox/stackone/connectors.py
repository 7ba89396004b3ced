"""The connectors that the sandbox's project has enabled, and the fields that their forms ask for."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

FieldType = Literal["text", "password", "number", "select", "text_area"]


@dataclass(frozen=True, kw_only=True)
class FormField:
    """One input of a connector's form."""

    key: str
    label: str
    type: FieldType = "text"
    required: bool = True
    secret: bool = False
    placeholder: str = ""
    tooltip: str = ""
    options: tuple[tuple[str, str], ...] = ()
    pattern: str | None = None
    pattern_error: str = ""
    # The Hub evaluates no conditions: whether a field is shown is decided here, by the session's type.
    only_for: Literal["production", "test"] | None = None

    def to_json(self, value: str | None = None) -> dict[str, object]:
        """Write the field out as the Hub reads it."""
        written: dict[str, object] = {
            "key": self.key,
            "label": self.label,
            "type": self.type,
            "required": self.required,
            "secret": self.secret,
            "readOnly": False,
        }
        if self.placeholder:
            written["placeholder"] = self.placeholder
        if self.tooltip:
            written["tooltip"] = self.tooltip
        if self.options:
            written["options"] = [{"value": option, "label": label} for option, label in self.options]
        if self.pattern is not None:
            written["validation"] = {"type": "html-pattern", "pattern": self.pattern, "error": self.pattern_error}
        if value is not None:
            written["value"] = value
        return written


@dataclass(frozen=True, kw_only=True)
class Connector:
    """One enabled integration of the project."""

    integration_id: str
    provider: str
    name: str
    category: str
    colour: str
    fields: tuple[FormField, ...] = ()
    oauth: bool = False
    client_credentials: bool = False
    active: bool = True
    version: str = "1.0.0"
    environment: str = "production"
    models: Mapping[str, object] = field(default_factory=dict)

    @property
    def uses_popup(self) -> bool:
        """Tell whether linking goes through the provider's own page."""
        return self.oauth and not self.client_credentials

    @property
    def authentication_key(self) -> str:
        """Return the key of the connector's way to authenticate."""
        return "oauth2" if self.oauth else "custom"

    @property
    def logo(self) -> str:
        """Return an svg as a data: URL, so that no request leaves for it."""
        svg = (
            '<svg xmlns="http://www.w3.org/2000/svg" width="40" height="40"><rect width="40" height="40" rx="8"'
            f' fill="{self.colour}"/><text x="20" y="27" font-size="20" text-anchor="middle" fill="#fff"'
            f' font-family="sans-serif">{self.name[0]}</text></svg>'
        )
        return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


_EMPLOYEE_MODELS = {"employees": {"list": True, "get": True}, "time_off": {"list": True}}

BAMBOOHR = Connector(
    integration_id="bamboohr_profile",
    provider="bamboohr",
    name="BambooHR",
    category="hris",
    colour="#5a9a1f",
    models=_EMPLOYEE_MODELS,
    fields=(
        FormField(
            key="subdomain",
            label="Subdomain",
            placeholder="your-company",
            pattern="^[a-z0-9][a-z0-9-]*$",
            pattern_error="Only lower-case letters, digits and dashes",
        ),
        FormField(
            key="api_key",
            label="API key",
            type="password",
            secret=True,
            placeholder="wrong = refused, broken = linked with an error",
        ),
        FormField(
            key="region",
            label="Region",
            type="select",
            options=(("eu", "Europe"), ("us", "United States")),
        ),
        FormField(key="note", label="Note", type="text_area", required=False),
        FormField(key="trial_code", label="Trial code", required=False, only_for="test"),
    ),
)

WORKDAY = Connector(
    integration_id="workday_profile",
    provider="workday",
    name="Workday",
    category="hris",
    colour="#0b6cb7",
    models=_EMPLOYEE_MODELS,
    fields=(
        FormField(key="tenant", label="Tenant"),
        FormField(key="username", label="Integration user"),
        FormField(key="password", label="Password", type="password", secret=True),
    ),
)

SALESFORCE = Connector(
    integration_id="salesforce_profile",
    provider="salesforce",
    name="Salesforce",
    category="crm",
    colour="#1b96d6",
    oauth=True,
    models={"contacts": {"list": True, "get": True}},
    fields=(FormField(key="my_domain", label="My Domain", required=False, placeholder="optional"),),
)

SAP_SUCCESSFACTORS = Connector(
    integration_id="sap_successfactors_profile",
    provider="sap_successfactors",
    name="SAP SuccessFactors",
    category="hris",
    colour="#0a6ed1",
    oauth=True,
    client_credentials=True,
    models=_EMPLOYEE_MODELS,
    fields=(
        FormField(key="company_id", label="Company id"),
        FormField(key="client_id", label="Client id"),
        FormField(key="client_secret", label="Client secret", type="password", secret=True),
    ),
)

GREENHOUSE = Connector(
    integration_id="greenhouse_profile",
    provider="greenhouse",
    name="Greenhouse",
    category="ats",
    colour="#24a47f",
    active=False,
    models={"candidates": {"list": True}},
)

CONNECTORS: tuple[Connector, ...] = (BAMBOOHR, WORKDAY, SALESFORCE, SAP_SUCCESSFACTORS, GREENHOUSE)


def connector_for(provider: str) -> Connector | None:
    """Return the project's connector for a provider."""
    return next((connector for connector in CONNECTORS if connector.provider == provider), None)
