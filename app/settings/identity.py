"""Which tokens and keys are trusted."""

import re
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, model_validator

from app.settings.section import Environment, Section, UrlText, secret_mistake, url_mistake

RSA_ALGORITHMS = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
EC_ALGORITHMS = frozenset({"ES256", "ES384", "ES512"})
EDWARDS_ALGORITHMS = frozenset({"EdDSA", "Ed25519"})
SECRET_ALGORITHMS = frozenset({"HS256", "HS384", "HS512"})
ALGORITHM_FAMILIES = (RSA_ALGORITHMS, EC_ALGORITHMS, EDWARDS_ALGORITHMS, SECRET_ALGORITHMS)
PLACEHOLDER = re.compile(r"\{([A-Za-z0-9_]{1,64})\}")
_MINIMUM_HS256_SECRET_BYTES = 32  # RFC 7518 section 3.2


ClaimPath = str | tuple[str, ...]


class OwnerIdForm(Enum):
    """What the owner's claim holds."""

    TEXT = "text"
    INTEGER = "integer"
    LIST = "list"
    MAP = "map"


class ClaimPaths(Section):
    """Which claims say who the caller is.

    A path is a claim's name, or names joined by dots for a nested one; a name that itself has dots or slashes, such
    as Auth0's "https://example.com/org", is tried whole first, and a list of names spells a path without ambiguity.
    """

    owner_id: ClaimPath = Field(
        examples=["org_id"], description="Claim with the owner id (the customer's organization)."
    )
    owner_id_form: OwnerIdForm = Field(
        default=OwnerIdForm.TEXT,
        description="text; integer (42 becomes the owner 42, and the text 42 is refused); list (of texts); or map (an"
        " object whose names are the ids).",
    )
    owner_id_member: str | None = Field(
        examples=["id"],
        default=None,
        min_length=1,
        description="In a map whose names are not the ids: the member of each entry that holds the id, such as id.",
    )
    owner_id_chosen_by: ClaimPath | None = Field(
        examples=["active_org"],
        default=None,
        description="Claim that says which entry of a list or map counts; without it there must be exactly one.",
    )
    owner_name: ClaimPath | None = Field(
        examples=["org_name"],
        default=None,
        description="Claim with the owner's display name; the owner id serves where it is absent. A * in the path"
        " stands for the entry of the map that counts.",
    )
    username: ClaimPath | None = Field(default="sub", description="Claim with the person who links.")

    @model_validator(mode="after")
    def _of_one_form(self) -> Self:
        if self.owner_id_member is not None and self.owner_id_form is not OwnerIdForm.MAP:
            message = "owner_id_member goes with owner_id_form map"
            raise ValueError(message)
        if self.owner_id_chosen_by is not None and self.owner_id_form not in {OwnerIdForm.LIST, OwnerIdForm.MAP}:
            message = "owner_id_chosen_by goes with owner_id_form list or map"
            raise ValueError(message)
        return self


class IssuerSettings(Section):
    """One trusted issuer of JWTs, with one family of algorithms."""

    issuer: str = Field(
        examples=["https://login.example.com/"],
        min_length=1,
        max_length=2048,
        description="Exact value of the `iss` claim. One {claim} in it, such as {tid}, stands for the text of that"
        " claim; `tenants` then says which texts are accepted.",
    )
    tenants: tuple[str, ...] | Literal["any"] | None = Field(
        examples=[["9188040d-6c67-4c5b-b112-36a304b66dad"]],
        default=None,
        description="For an issuer with a {claim} in it: its accepted values, or any.",
    )
    audiences: tuple[str, ...] = Field(
        examples=[["connect-broker"]], min_length=1, description="Accepted values of the `aud` claim."
    )
    audience_claim: str = Field(
        default="aud",
        min_length=1,
        description="Claim that holds the audience where a login issues access tokens without `aud`: client_id"
        " (Cognito), azp (Clerk, Kinde). It is mandatory, and compared exactly.",
    )
    owners: tuple[str, ...] | None = Field(
        examples=[["acme-*"]],
        default=None,
        min_length=1,
        description="Owners that this issuer may vouch for, * standing for any text; by default every one.",
    )
    header: str | None = Field(
        examples=["x-goog-iap-jwt-assertion"],
        default=None,
        pattern=r"^[A-Za-z][A-Za-z0-9-]{2,63}$",
        description="Header in which a proxy of BROKER_HTTP__TRUSTED_PROXIES passes this issuer's tokens, such as"
        " x-goog-iap-jwt-assertion; they are accepted there only, and with the header against CSRF that cookies need.",
    )
    algorithms: tuple[str, ...] = Field(
        default=("RS256",), min_length=1, description="Accepted `alg` values, one family."
    )
    jwks_uri: UrlText | None = Field(
        examples=["https://login.example.com/keys"],
        default=None,
        description="Where the keys are, if not found by OIDC discovery.",
    )
    jwks_file: Path | None = Field(
        examples=["/etc/connect-broker/keys.json"],
        default=None,
        description="A file with the keys (JWKS), for issuers without an endpoint.",
    )
    secret: SecretStr | None = Field(
        examples=["at-least-32-bytes-that-nobody-guesses"],
        default=None,
        description="Shared secret for HS256 tokens of a home-made login.",
    )
    secrets: tuple[SecretStr, ...] = Field(
        examples=[["32-more-bytes-that-nobody-will-guess"]],
        default=(),
        max_length=8,
        description="Further shared secrets, each as good as the other; while one is rotated.",
    )
    token_types: tuple[str, ...] = Field(
        examples=[["at+jwt"]], default=(), description="Required `typ` header, such as at+jwt; empty accepts any."
    )
    access_token_claim: ClaimPath | None = Field(
        examples=["scp"],
        default=None,
        description="Claim that this issuer's access tokens have and its ID tokens lack, such as scp: it must be there,"
        " and a nonce then makes no ID token (authentik, Azure AD B2C).",
    )
    leeway_seconds: float = Field(
        default=30, ge=0, le=60, description="Clock difference to the issuer that is tolerated."
    )
    max_lifetime_seconds: float = Field(default=86_400, gt=0, description="Longest exp - iat that is accepted.")
    claims: ClaimPaths = Field(
        examples=[{"owner_id": "org_id", "owner_name": "org_name", "username": "email"}],
        description="Which claims say who the caller is.",
    )
    required_claims: dict[str, str | tuple[str, ...]] = Field(
        examples=[{"email_verified": "true"}],
        default_factory=dict,
        description="Claims that must have this value (or one of these).",
    )

    @model_validator(mode="after")
    def _one_source_and_family(self) -> Self:
        families = [family for family in ALGORITHM_FAMILIES if family & set(self.algorithms)]
        if len(families) != 1 or not set(self.algorithms) <= families[0]:
            message = "algorithms must be known ones of a single family (RS*/PS*, ES*, EdDSA or HS*)"
            raise ValueError(message)
        if (families[0] is SECRET_ALGORITHMS) != bool(self.shared_secrets):
            message = "a secret goes with HS* algorithms, and only with them"
            raise ValueError(message)
        if sum(map(bool, (self.jwks_uri, self.jwks_file, self.shared_secrets))) > 1:
            message = "give one of jwks_uri, jwks_file and secret, or none of them for OIDC discovery"
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _template(self) -> Self:
        placeholders = PLACEHOLDER.findall(self.issuer)
        if set(self.issuer) & set("{}") and (len(placeholders) != 1 or self.issuer.count("{") != 1):
            message = "an issuer may hold one {claim}, and no other braces"
            raise ValueError(message)
        if bool(placeholders) != (self.tenants is not None) or self.tenants == ():
            message = "an issuer with a {claim} needs tenants, a list of the accepted values or any; others need none"
            raise ValueError(message)
        if placeholders and not (self.jwks_uri or self.jwks_file or self.shared_secrets):
            message = "an issuer with a {claim} needs a jwks_uri: the keys of all tenants cannot be discovered"
            raise ValueError(message)
        return self

    @property
    def family(self) -> frozenset[str]:
        """The family that its algorithms are of."""
        return next(family for family in ALGORITHM_FAMILIES if family & set(self.algorithms))

    @property
    def shared_secrets(self) -> tuple[SecretStr, ...]:
        """Every secret that a token may be signed with."""
        return (*((self.secret,) if self.secret else ()), *self.secrets)

    def mistakes(self, environment: Environment) -> Iterator[str]:
        """Yield what this environment must not accept of this issuer."""
        for secret in self.shared_secrets:
            if len(secret.get_secret_value().encode()) < _MINIMUM_HS256_SECRET_BYTES:
                yield f"secret must have at least {_MINIMUM_HS256_SECRET_BYTES} bytes"
            if reason := secret_mistake(secret, environment):
                yield f"secret {reason}"
        if self.shared_secrets:
            return
        if self.jwks_file is not None:
            if not self.jwks_file.is_file():
                yield "jwks_file does not exist"
        elif reason := url_mistake(self.jwks_uri or self.issuer, environment):
            yield f"{'jwks_uri' if self.jwks_uri else 'issuer'} {reason}"


class MachineIssuerSettings(IssuerSettings):
    """An issuer of machine tokens (OAuth client credentials), accepted on service routes."""

    claims: ClaimPaths = Field(
        default=ClaimPaths(owner_id="owner_ids", username="sub"),
        description="Only username is used, as the name in logs.",
    )
    scope_claim: str = Field(default="scope", description="Claim with the scopes: a list, or text parted by spaces.")
    owners_claim: str | None = Field(
        examples=["owner_ids"], default=None, description="Claim with a list of owner ids the machine is limited to."
    )


class CookieSettings(Section):
    """The same JWT in a cookie instead of the Authorization header, on browser routes, with CSRF protection."""

    name: str = Field(
        default="__Host-connect-broker", pattern=r"^__Host-[A-Za-z0-9_-]{1,64}$", description="Name of the cookie."
    )
    csrf_header: str = Field(
        default="x-connect-broker",
        pattern=r"^[a-z][a-z0-9-]{2,63}$",
        description="Header that every cookie request must carry.",
    )


class IdentitySettings(Section):
    """Which tokens are trusted."""

    issuers: tuple[IssuerSettings, ...] = Field(
        examples=[
            [
                {
                    "issuer": "https://login.example.com/",
                    "audiences": ["connect-broker"],
                    "claims": {"owner_id": "org_id"},
                }
            ]
        ],
        min_length=1,
        description="Issuers of end users' tokens (JSON list).",
    )
    machine_issuers: tuple[MachineIssuerSettings, ...] = Field(
        examples=[[{"issuer": "https://login.example.com/", "audiences": ["connect-broker-services"]}]],
        default=(),
        description="Issuers of machine tokens, accepted on service routes (JSON list).",
    )
    cookie: CookieSettings | None = Field(
        examples=[{"name": "__Host-session"}],
        default=None,
        description="Accept the JWT in a cookie too; null ignores cookies.",
    )
    jwks_cooldown_seconds: float = Field(
        default=30,
        ge=1,
        le=3600,
        description="Shortest time between two key fetches of one issuer; less, from 1 s on, until there are keys.",
    )
    jwks_fresh_seconds: float = Field(
        default=600, ge=10, le=86_400, description="Age after which keys are fetched again."
    )
    jwks_stale_seconds: float = Field(
        default=86_400, ge=60, le=604_800, description="Age up to which keys are still used while the issuer is away."
    )
    timeout_seconds: float = Field(default=5, gt=0, le=30, description="Deadline of a key fetch.")

    @property
    def csrf_header(self) -> str | None:
        """The header that requests carry whose credential is a cookie, ours or a proxy's; None where there are none."""
        if self.cookie is not None:
            return self.cookie.csrf_header
        return CookieSettings().csrf_header if any(issuer.header for issuer in self.issuers) else None

    @model_validator(mode="after")
    def _each_issuer_once(self) -> Self:
        for listed in (self.issuers, self.machine_issuers):
            # A login that moves from one family of algorithms to another signs with both for a while.
            names = [(issuer.issuer, issuer.family) for issuer in listed]
            if len(set(names)) != len(names):
                message = "each issuer may be listed once in each list, or once for each family of algorithms"
                raise ValueError(message)
        for machine in self.machine_issuers:
            for user in self.issuers:
                shared = machine.issuer == user.issuer and set(machine.audiences) & set(user.audiences)
                if machine.header is not None:
                    message = "a header is for users' issuers; machines send their tokens as a Bearer"
                    raise ValueError(message)
                if shared and not machine.required_claims:
                    message = (
                        "an issuer of both users' and machines' tokens needs its own audience for machines, or"
                        " required_claims that only machine tokens have: a user's token must not count as a service's"
                    )
                    raise ValueError(message)
        return self

    def unsafe(self, environment: Environment) -> Iterator[tuple[str, str]]:
        """Keys come over https, secrets are long."""
        for name, issuers in (("ISSUERS", self.issuers), ("MACHINE_ISSUERS", self.machine_issuers)):
            for number, issuer in enumerate(issuers):
                for mistake in issuer.mistakes(environment):
                    yield f"{name}[{number}]", mistake


class ServiceKeySettings(Section):
    """Service keys are stored as HMAC-SHA-256 under the pepper."""

    pepper: SecretStr = Field(
        examples=["what openssl rand -base64 32 prints"],
        description="Key of the keyed hash; without it a copy of the database does not help to find a key.",
    )
    previous_peppers: tuple[SecretStr, ...] = Field(
        examples=[["the pepper before this one"]],
        default=(),
        max_length=4,
        description="Earlier peppers, still accepted while keys are being replaced.",
    )

    def unsafe(self, environment: Environment) -> Iterator[tuple[str, str]]:
        """The pepper is long and production's own."""
        if reason := secret_mistake(self.pepper, environment):
            yield "PEPPER", reason
