"""Every place of the OpenAPI document that a caller writes into, and whose id, if any, stands there."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Any, Literal

from app.main import create_app
from tests.support.world import settings_for

Where = Literal["path", "query", "header", "cookie", "body"]


class Kind(StrEnum):
    """Of what an id is."""

    ACCOUNT = "account"
    SESSION = "session"
    OWNER = "owner"
    CURSOR = "cursor"
    TOKEN = "session token"
    ERASURE = "erasure"
    INVITATION = "invitation"
    CODE = "code of an invitation"


# An id-bearing place that stands in neither table fails the matrix: say which it is.
IDS: Mapping[tuple[Where, str], Kind] = {
    ("path", "account_id"): Kind.ACCOUNT,
    ("body", "account_id"): Kind.ACCOUNT,
    ("path", "session_id"): Kind.SESSION,
    ("path", "owner_id"): Kind.OWNER,
    ("body", "owner_id"): Kind.OWNER,
    ("query", "owner_id"): Kind.OWNER,
    ("query", "account_id"): Kind.ACCOUNT,
    ("query", "cursor"): Kind.CURSOR,
    ("body", "token"): Kind.TOKEN,
    ("path", "erasure_id"): Kind.ERASURE,
    ("path", "invitation_id"): Kind.INVITATION,
    ("body", "code"): Kind.CODE,
}
NO_IDS: Mapping[tuple[Where, str], str] = {
    ("query", "provider"): "names a product, not anybody's thing",
    ("path", "provider"): "names a product",
    ("path", "destination"): "names a service of the operator's; limited keys are refused",
    ("path", "position"): "a position that all owners' changes share; limited keys are refused",
    ("query", "state"): "one of two words",
    ("query", "user"): "one of the owner's users; whoever may ask for the owner may name any",
    ("body", "user"): "one of the owner's users",
    ("query", "status"): "a filter over one's own",
    ("query", "limit"): "a number",
    ("query", "channel"): "a word from a fixed list",
    ("query", "live"): "yes or no",
    ("query", "needs_reauth"): "yes or no",
    ("query", "usable"): "yes or no",
    ("query", "updated_since"): "a moment",
    ("query", "snapshot"): "yes or no",
    ("query", "kind"): "a word from a fixed list",
    ("query", "max_age"): "seconds",
    ("query", "must_be_fresh"): "yes or no",
    ("query", "after"): "a position that all owners' changes share; see the feed's own test",
    ("query", "wait"): "seconds",
    ("header", "x-stackone-signature"): "the webhook's credential",
    ("body", "provider"): "names a product",
    ("body", "categories"): "words from a fixed list",
    ("body", "multiple"): "yes or no",
    ("body", "label"): "free text",
    ("body", "connector_profile_id"): "belongs to the project, which all owners share; policy says who may use it",
    ("body", "integration_id"): "the same under its old name",
    ("body", "origin_owner_name"): "a service's word; counts only until a name is pinned",
    ("body", "origin_username"): "a service's word",
    ("body", "expires_in"): "seconds",
    ("body", "for"): "a service's word: who may open it, who has to prove it",
    ("body", "return_url"): "a page of the operator's",
    ("body", "metadata"): "free JSON",
    ("body", "type"): "one of two words",
    ("body", "shared"): "yes or no",
    ("body", "name"): "free text",
    ("body", "owner_name"): "a service's word; counts only until a name is pinned",
    ("body", "dry_run"): "yes or no",
    ("body", "channel"): "a word from a fixed list",
    ("body", "has_account"): "yes or no",
    ("body", "claims"): "made up by whoever asks; nothing is looked up by it",
    ("body", "max_removal_percent"): "a number",
}


@dataclass(frozen=True)
class Operation:
    """One operation of the document."""

    method: str
    path: str
    channel: str
    parameters: tuple[tuple[Where, str], ...]
    body: Mapping[str, Any] | None

    def __str__(self) -> str:
        """Name it in a test id."""
        return f"{self.method} {self.path}"

    @property
    def places(self) -> tuple[tuple[Where, str], ...]:
        """List where a caller writes."""
        fields: tuple[tuple[Where, str], ...] = tuple(
            ("body", name) for name in (self.body or {}).get("properties", ())
        )
        return (*self.parameters, *fields)

    @property
    def required_fields(self) -> tuple[str, ...]:
        """List the fields that a body cannot lack."""
        return tuple((self.body or {}).get("required", ()))


@cache
def document() -> dict[str, Any]:
    """Return the OpenAPI document."""
    settings = settings_for(
        database_url="sqlite:///unused.db", stackone_url="http://127.0.0.1:1", issuer="http://127.0.0.1:2"
    )
    return create_app(settings).openapi()


@cache
def operations() -> tuple[Operation, ...]:
    """Return every operation."""
    return tuple(_operations())


def _operations() -> Iterator[Operation]:
    for path, item in document()["paths"].items():
        for method, operation in item.items():
            [channel] = operation["tags"]
            parameters = tuple((entry["in"], entry["name"]) for entry in operation.get("parameters", ()))
            yield Operation(method.upper(), path, channel, parameters, _body(operation))


def _body(operation: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the one object that a body may be; a body of another shape has to be looked at by a person."""
    content = operation.get("requestBody", {}).get("content")
    if content is None or operation["tags"] == ["webhook"]:
        return None
    assert list(content) == ["application/json"], content
    schema = content["application/json"]["schema"]
    choices = [choice for choice in schema.get("anyOf", [schema]) if choice != {"type": "null"}]
    [reference] = [choice["$ref"] for choice in choices]
    found = document()["components"]["schemas"][reference.rpartition("/")[2]]
    assert "$ref" not in str([field for name, field in found["properties"].items() if name not in _FLAT]), (
        f"{reference} has objects inside: teach this module to look into them"
    )
    return dict(found)


# Their references lead to words of a fixed list.
_FLAT = frozenset({"categories", "channel", "type"})
