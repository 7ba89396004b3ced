"""What a genuine token must also say before it counts: when, for what, and (by configured paths) about whom."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeGuard

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from app.identity.refusal import Refused
from app.identity.tokens.unverified import UnverifiedToken
from app.inputs import storable
from app.settings import IssuerSettings, OwnerIdForm
from app.settings.identity import PLACEHOLDER, ClaimPath, ClaimPaths

MAXIMUM_TEXT_LENGTH = 255
_LAST_SECOND = 253_402_300_799  # 9999-12-31: beyond it dates cannot even be spelled

# Claims that only ID tokens have (OpenID Connect Core 1.0 sections 2, 3.1.3.6, 3.3.2.11).
_ID_TOKEN_CLAIMS = frozenset({"nonce", "at_hash", "c_hash"})
# Claims by which an issuer says what kind a token is (Keycloak, Cognito).
_KIND_CLAIMS = frozenset({"typ", "token_use"})
# Signed by the same issuer, for the same client, and never meant as access tokens (RFC 8725 section 3.11).
_OTHER_KINDS = frozenset(
    {
        "logout+jwt",
        "secevent+jwt",
        "dpop+jwt",
        "token-introspection+jwt",
        "oauth-authz-req+jwt",
        "client-authentication+jwt",
    }
)

NumericDate = Annotated[float, Field(ge=0, le=_LAST_SECOND, allow_inf_nan=False)]


class RegisteredClaims(BaseModel):
    """The times of a token. Strict: "123", true and 1e400 are refused."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", hide_input_in_errors=True)

    exp: NumericDate
    iat: NumericDate | None = None
    nbf: NumericDate | None = None

    @field_validator("iat", "nbf", mode="before")
    @classmethod
    def _no_null(cls, value: object) -> object:
        if value is None:
            message = "null is no time"
            raise ValueError(message)
        return value


def check_claims(token: UnverifiedToken, payload: Mapping[str, Any], settings: IssuerSettings, *, now: float) -> float:
    """Check when and for what a genuine token is valid; not yet whom it is about. Raises Refused.

    Return the moment from which on it has expired.
    """
    until = _check_times(payload, now, leeway=settings.leeway_seconds, longest=settings.max_lifetime_seconds)
    _check_kind(token.type, payload, settings)
    for name, accepted in settings.required_claims.items():
        if not meets(payload, {name: accepted}):
            what = "has another value in" if find_claim(payload, name) is not None else "lacks"
            reason = f"the token {what} the required claim {name}"
            raise Refused(reason)
    return until


def check_tenant(token: UnverifiedToken, payload: Mapping[str, Any], settings: IssuerSettings) -> None:
    """Check a genuine token of an issuer with a {claim} in it: the claim says what `iss` says, and is accepted.

    Microsoft asks this of whoever serves several tenants: `iss` and `tid` must be of one, and of one that is meant.
    Raises Refused.
    """
    if settings.tenants is None:
        return
    found = PLACEHOLDER.search(settings.issuer)
    assert found is not None  # noqa: S101  settings see to it
    name = found[1]
    tenant = payload.get(name)
    if not isinstance(tenant, str) or settings.issuer.replace(found[0], tenant) != token.issuer:
        reason = f"the token's iss and {name} name different tenants"
        raise Refused(reason)
    if settings.tenants != "any" and tenant not in settings.tenants:
        reason = f"the token's {name} is none of the accepted tenants"
        raise Refused(reason)


def _check_times(payload: Mapping[str, Any], now: float, *, leeway: float, longest: float) -> float:
    try:
        times = RegisteredClaims.model_validate(
            {name: payload[name] for name in ("exp", "iat", "nbf") if name in payload}
        )
    except ValidationError as error:
        reason = "the token has a malformed exp, iat or nbf"
        raise Refused(reason) from error
    if times.exp <= now - leeway:
        reason = "the token has expired by its exp"
        raise Refused(reason)
    for name, begins in (("nbf", times.nbf), ("iat", times.iat)):
        if (begins or 0) > now + leeway:
            reason = f"the token is not valid yet by its {name}"
            raise Refused(reason)
    # A token that is valid for years is a password, and nobody can revoke it.
    if times.exp - (now if times.iat is None else times.iat) > longest:
        reason = "the token lives longer, from iat to exp, than this issuer's tokens may"
        raise Refused(reason)
    return times.exp + leeway


def _check_kind(token_type: str | None, payload: Mapping[str, Any], settings: IssuerSettings) -> None:
    """Tell access tokens from ID tokens and other JWTs of the issuer (RFC 9068 section 4, RFC 8725 section 3.12)."""
    kind = _media_type(token_type or "")
    wanted = {_media_type(name) for name in settings.token_types}
    if (wanted and kind not in wanted) or (not wanted and kind in _OTHER_KINDS):
        reason = "the token is of another type by its typ"
        raise Refused(reason)
    # An ID token tells a client who logged in; it reaches far more parties than an access token does. Some issuers
    # put a nonce into access tokens too (Keycloak before 25), and some logins have nothing but ID tokens (Cognito):
    # there the settings must name the kind that is meant, by its typ header or by a claim.
    named_by_settings = wanted - {"jwt"} or _KIND_CLAIMS & settings.required_claims.keys()
    marks = _ID_TOKEN_CLAIMS & payload.keys()
    if settings.access_token_claim is not None:
        if find_claim(payload, settings.access_token_claim) is None:
            reason = f"the token has no {claim_name(settings.access_token_claim)}, which access tokens have here"
            raise Refused(reason)
        # Some issuers put a nonce into access tokens too; a hash of one is in ID tokens only.
        marks -= {"nonce"}
    if not named_by_settings and marks:
        reason = f"the token is an ID token: it has {', '.join(sorted(marks))}"
        raise Refused(reason)


def _media_type(name: str) -> str:
    # RFC 7515 section 4.1.9: case does not matter and "application/" may be left out.
    return name.lower().removeprefix("application/")


def meets(payload: Mapping[str, Any], required: Mapping[str, str | tuple[str, ...]]) -> bool:
    """Say whether each required claim has its value, or one of its values; a list needs one member that fits."""
    for name, accepted in required.items():
        value = find_claim(payload, name)
        if isinstance(value, str) and name in _SPACED:
            value = [value, *value.split(" ")]
        spelled = {_spelled(member) for member in (value if isinstance(value, list) else [value])}
        if not spelled & ({accepted} if isinstance(accepted, str) else set(accepted)):
            return False
    return True


# RFC 8693 section 4.2 and Microsoft Entra: texts parted by spaces.
_SPACED = frozenset({"scope", "scp"})


def claim_name(path: ClaimPath) -> str:
    """Name a claim in a log."""
    return path if isinstance(path, str) else ".".join(path)


def _spelled(value: object) -> str | None:
    """Spell a claim as settings do: text as it is, true as "true", 7 as "7"; nothing else can be required."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, (str, int)) else None


def find_claim(payload: Mapping[str, Any], path: ClaimPath) -> Any:
    """Return the claim at a path, or None. Text is tried as a whole name before its dots are taken for nesting.

    "https://acme.example/org_id" is one name, "org.id" is `id` inside `org`, ("org", "id") leaves nothing to guess.
    """
    if isinstance(path, str) and path in payload:
        return payload[path]
    found: Any = payload
    for name in path.split(".") if isinstance(path, str) else path:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def text_claim(payload: Mapping[str, Any], path: ClaimPath, what: str) -> str | None:
    """Return the text at a path, or None where there is none. Raises Refused for anything but decent text.

    A list, number or object is refused rather than spelled out: ["acme", "evil"] must not become an owner, and 7 must
    not become the owner "7" of somebody else.
    """
    value = find_claim(payload, path)
    if value is None:
        return None
    if is_decent_text(value):
        return value
    reason = f"the claim {claim_name(path)} for {what} is not text of 1 to {MAXIMUM_TEXT_LENGTH} printable characters"
    raise Refused(reason)


@dataclass(frozen=True)
class OwnerClaim:
    """The owner that a token names, and under which name in a map it stands."""

    owner_id: str
    entry: str | None = None


def owner_claim(payload: Mapping[str, Any], paths: ClaimPaths) -> OwnerClaim | None:
    """Return the owner at the configured path, in the configured form; None where the claim is absent. Raises Refused.

    Nothing is guessed: of several entries one counts only if a claim of the token says which.
    """
    value = find_claim(payload, paths.owner_id)
    if value is None:
        return None
    where = f"the claim {claim_name(paths.owner_id)} for the owner id"
    match paths.owner_id_form:
        case OwnerIdForm.TEXT:
            text = text_claim(payload, paths.owner_id, "the owner id")
            return OwnerClaim(text) if text is not None else None
        case OwnerIdForm.INTEGER:
            if isinstance(value, bool) or not isinstance(value, int):
                reason = f"{where} is no integer"
                raise Refused(reason)
            return OwnerClaim(str(value))
        case OwnerIdForm.LIST:
            return OwnerClaim(_chosen(payload, paths, value if isinstance(value, list) else [], where))
        case OwnerIdForm.MAP:
            entries = value if isinstance(value, dict) else {}
            entry = _chosen(payload, paths, list(entries), where)
            if paths.owner_id_member is None:
                return OwnerClaim(entry, entry)
            member = find_claim(entries, (entry, paths.owner_id_member))
            if not is_decent_text(member):
                reason = f"{where} has no text in the member {paths.owner_id_member}"
                raise Refused(reason)
            return OwnerClaim(member, entry)


def _chosen(payload: Mapping[str, Any], paths: ClaimPaths, entries: Sequence[object], where: str) -> str:
    """Return the one entry that counts. Raises Refused."""
    texts = [entry for entry in entries if is_decent_text(entry)]
    if not texts or len(texts) != len(entries):
        reason = f"{where} is no {paths.owner_id_form.value} with texts in it"
        raise Refused(reason)
    if paths.owner_id_chosen_by is not None:
        chosen = find_claim(payload, paths.owner_id_chosen_by)
        if chosen not in texts:
            reason = f"{where} has no entry that {claim_name(paths.owner_id_chosen_by)} names"
            raise Refused(reason)
        return str(chosen)
    if len(set(texts)) > 1:
        reason = f"{where} has several entries; say with owner_id_chosen_by which counts"
        raise Refused(reason)
    return texts[0]


def in_entry(path: ClaimPath, entry: str | None) -> ClaimPath:
    """Return a path with the name of a map's entry in the place of its *."""
    names = tuple(path.split(".")) if isinstance(path, str) else path
    if "*" not in names or entry is None:
        return path
    return tuple(entry if name == "*" else name for name in names)


def optional_text_claim(payload: Mapping[str, Any], path: ClaimPath) -> str | None:
    """Return the text at a path as far as it is decent, or None: a name that is empty or ugly must lock nobody out."""
    value = find_claim(payload, path)
    if not isinstance(value, str):
        return None
    printable = "".join(character if is_decent_text(character) else " " for character in value)
    text = " ".join(printable.split())[:MAXIMUM_TEXT_LENGTH].rstrip()
    return text or None


def is_decent_text(value: object) -> TypeGuard[str]:
    """Say whether a value may be kept and passed on: text, not empty, not huge, without controls and surrogates."""
    if not isinstance(value, str) or not 0 < len(value) <= MAXIMUM_TEXT_LENGTH:
        return False
    try:
        storable(value)
    except ValueError:
        return False
    return True


def text_list_claim(payload: Mapping[str, Any], path: ClaimPath, what: str) -> Sequence[str] | None:
    """Return the list of texts at a path (one text counts as a list of one), or None. Raises Refused."""
    value = find_claim(payload, path)
    if value is None:
        return None
    members = value if isinstance(value, list) else [value]
    if not all(is_decent_text(member) for member in members):
        reason = f"the claim {claim_name(path)} for {what} is not a list of texts"
        raise Refused(reason)
    return members
