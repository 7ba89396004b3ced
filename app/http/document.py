"""The OpenAPI document, completed with what FastAPI does not say by itself: for people, and for generators of clients.

Every operation gets what it needs (caller and scope), headers, and an example of each answer; every error its code.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from fastapi import FastAPI
from fastapi.routing import APIRoute

from app.errors import AppError
from app.http.callers import required_scope
from app.http.problems import SAMPLE_REQUEST_ID

Schema = dict[str, Any]

DESCRIPTION: Final = (
    "Hands out connect-session tokens for StackOne's Hub, and knows which linked accounts belong to which customer."
    " Pages call the *browser* operations with the token of their user; backends call the *service* operations with a"
    " service key. Errors are RFC 9457 problem documents; `code` says what to do next."
)
CONTACT: Final = {"name": "Whoever runs this broker"}
LICENSE: Final = {"name": "MIT", "identifier": "MIT"}
SERVERS: Final = [
    {
        "url": "https://{host}",
        "description": "A broker of yours.",
        "variables": {"host": {"default": "connect-broker.internal", "description": "Its name."}},
    },
]
TAGS: Final = [
    {"name": "browser", "description": "For pages: the caller is a signed-in user, and everything is their owner's."},
    {"name": "service", "description": "For backends: the caller is a service key with a scope."},
    {"name": "webhook", "description": "For StackOne: signed over the raw body."},
    {"name": "health", "description": "For load balancers: open to everybody."},
]
_NEEDS: Final = {
    "browser": "The caller is a signed-in user; everything is their owner's.",
    "webhook": "The caller is StackOne, by its signature.",
    "health": "Open to everybody.",
}
_SAMPLES: Final[Mapping[str, Any]] = {
    "account_id": "47187425466113776871",
    "linked_account_id": "47187425466113776871",
    "owner_id": "org_acme",
    "owner_name": "Acme Inc",
    "previous_name": "Acme",
    "name": "Acme Inc",
    "provider": "bamboohr",
    "username": "alice@acme.example",
    "for": "alice@acme.example",
    "user": "alice@acme.example",
    "id": "cs_Hi4JuKJDk2nbgPYWPloAPg",
    "token": "eyJhbGciOi...",
    "code": "inv_Hi4JuKJDk2nbgPYWPloAPgq1xw...",
    "url": "https://app.example.com/invited#inv_Hi4JuKJDk2nbgPYWPloAPgq1xw...",
    "auth_link_url": "https://app.stackone.com/embedded?token=eyJhbGciOi...",
    "return_url": "https://app.example.com/done",
    "logo_url": "https://app.example.com/logos/bamboohr.png",
    "label": "BambooHR",
    "kind": "account.needs_reauth",
    "type": "production",
    "source": "webhook",
    "actor": "user:alice@https://login.example.com/",
    "requested_by": "service:k3v1n8p0qa2b",
    "status": "active",
    "categories": ["hris"],
    "scopes": ["accounts:read"],
    "cursor": "NDcxODc0MjU0NjYxMTM3NzY4NzE",
    "after": "1204.5f0c9d3e",
    "session_id": "cs_Hi4JuKJDk2nbgPYWPloAPg",
    "invitation_id": "inv_Hi4JuKJDk2nbgPYWPloAPg",
    "erasure_id": "er_Hi4JuKJDk2nbgPYWPloAPg",
    "destination": "billing",
    "x-stackone-signature": "5iQrb3cyDcyZ6T9EBkRzMyBzRyVOEM9XpyMh4aUn8rE",
    "next_cursor": "NDcxODc0MjU0NjYxMTM3NzY4NzE",
    "head": "1204",
    "feed_position": "1204.5f0c9d3e",
    "position": 1204,
    "expires_in": 900,
    "limit": 50,
    "request_id": SAMPLE_REQUEST_ID,
    "connector_profile_id": "hris-default",
    "rule": "everybody else",
    "reason": 'rule "everybody else" allows it',
    "failure": "status_503",
    "message": "BambooHR is connected.",
    "metadata": {"plan": "gold"},
    "claims": {"role": "admin"},
    "changes": {"status": {"from": "active", "to": "error"}},
    "by_status": {"active": 3},
    "status_reasons": [],
    "reasons": [],
    "needs_reauth": False,
    "needs_reauth_since": None,
    "recovered_at": None,
    "usable": True,
    "leaving": False,
}
# Bodies in which one field excludes another, or of which one shows little.
_BODIES: Final[Mapping[str, Schema]] = {
    "createConnectSession": {"provider": "bamboohr"},
    "createOwnerConnectSession": {
        "provider": "bamboohr",
        "origin_owner_name": "Acme Inc",
        "origin_username": "alice@acme.example",
        "expires_in": 900,
    },
    "createOwnerAuthLink": {"provider": "bamboohr", "origin_owner_name": "Acme Inc", "expires_in": 86_400},
    "createInvitation": {
        "provider": "bamboohr",
        "for": "alice@acme.example",
        "expires_in": 604_800,
    },
    "createUserToken": {"user": "alice@acme.example", "owner_name": "Acme Inc", "expires_in": 900},
    "explainPolicy": {"owner_id": "org_acme", "channel": "browser", "provider": "bamboohr"},
    "pinOwnerName": {"name": "Acme Inc", "dry_run": True},
    "startSync": {"max_removal_percent": 10},
    "receiveStackOneEvent": {"event": "account.updated", "account_id": "47187425466113776871"},
}
_PYTHONS: Final = {"string": "str", "integer": "int", "boolean": "bool", "number": "float", "object": "dict"}
_MOMENT: Final = "2026-11-26T12:00:00Z"
_REQUEST_ID: Final = {
    "description": "Names the request in the broker's log; taken from the request where it has one.",
    "schema": {"type": "string"},
}
_RETRY_AFTER: Final = {"description": "Seconds after which to come back.", "schema": {"type": "integer", "minimum": 0}}
_COME_BACK: Final = {"409", "429", "503"}
# What stands in paths and headers, by name; queries say it in their models.
_PARAMETERS: Final[Mapping[str, str]] = {
    "account_id": "A linked account, by StackOne's id.",
    "destination": "A push destination, by its name in the broker's settings.",
    "erasure_id": "An erasure, by the id of its receipt.",
    "invitation_id": "An invitation, by its id.",
    "owner_id": "An owner, by the id that identity provider and services know it by.",
    "position": "A change, by its place in the feed.",
    "provider": "A provider, by StackOne's key.",
    "session_id": "A connect session, by its id.",
    "x-stackone-signature": "HMAC-SHA256 of the raw body with a webhook secret, in base64url.",
}


def error_codes() -> frozenset[str]:
    """Return every code that can be answered: `problem_body` takes one of these classes."""
    found: set[str] = set()
    kinds: list[type[AppError]] = [AppError]
    while kinds:
        kind = kinds.pop()
        found.add(kind.code)
        kinds += kind.__subclasses__()
    return frozenset(found)


def describe(web: FastAPI) -> Callable[[], Schema]:
    """Return what describes an app: FastAPI's document, completed."""
    plain = web.openapi

    def described() -> Schema:
        document = plain()
        if "servers" not in document:
            complete(document, scopes_of(web))
        return document

    return described


def scopes_of(web: FastAPI) -> dict[str, str]:
    """Return the scope that each operation needs, by its id."""
    scopes: dict[str, str] = {}
    for route in _routes(web.routes):
        scope = required_scope(route.dependant)
        if scope is not None and route.operation_id is not None:
            scopes[route.operation_id] = scope.value
    return scopes


def _routes(routes: Sequence[Any]) -> Iterator[APIRoute]:
    for route in routes:
        if isinstance(route, APIRoute):
            yield route
        # An included router stands in the app's list as it is.
        elif (below := getattr(route, "original_router", None)) is not None:
            yield from _routes(below.routes)


def complete(document: Schema, scopes: Mapping[str, str]) -> None:
    """Complete a document in place."""
    document["servers"] = SERVERS
    document["tags"] = TAGS
    document["info"] |= {"description": DESCRIPTION, "contact": CONTACT, "license": LICENSE}
    schemas: Schema = document["components"]["schemas"]
    for item in document.get("webhooks", {}).values():
        for operation in item.values():
            _turn_round(operation)
    schemas["Problem"]["properties"]["code"] |= {"enum": sorted(error_codes()), "description": "What to do next."}
    for _, operation in operations(document):
        _complete_operation(operation, scopes, schemas)


def _turn_round(operation: Schema) -> None:
    """Make what the broker writes the body of a request that it makes."""
    written = operation["responses"].pop("200")
    operation["requestBody"] = {"required": True, "content": written["content"]}
    operation["responses"] = {"2XX": {"description": "Accepted; with any other status it is tried again."}}


def operations(document: Schema) -> Iterator[tuple[str, Schema]]:
    """Yield each operation with its method and path; what is posted to destinations included."""
    for part in ("paths", "webhooks"):
        for path, item in document.get(part, {}).items():
            for method, operation in item.items():
                yield f"{method.upper()} {path}", operation


def _complete_operation(operation: Schema, scopes: Mapping[str, str], schemas: Schema) -> None:
    tag = next(iter(operation.get("tags", ())), "")
    scope = scopes.get(operation["operationId"])
    needs = f"The key needs the scope `{scope}`." if scope else _NEEDS.get(tag, "")
    operation["description"] = " ".join(filter(None, (f"{operation['summary']}.", needs)))
    if scope:
        # Scopes of OAuth's own belong to OAuth's own schemes, linters say.
        operation["x-required-scope"] = scope
    operation.setdefault("security", [])
    if "requestBody" in operation:
        _complete_body(operation["requestBody"], schemas, _BODIES.get(operation["operationId"]))
    for parameter in operation.get("parameters", ()):
        _complete_parameter(parameter, schemas)
    for status, response in operation["responses"].items():
        headers = response.setdefault("headers", {})
        headers["X-Request-ID"] = _REQUEST_ID
        if status in _COME_BACK:
            headers["Retry-After"] = _RETRY_AFTER
        for kind, content in response.get("content", {}).items():
            if kind == "application/problem+json":
                _place_mistakes(content["examples"], operation)
            else:
                content["example"] = example(content["schema"], schemas)
                if tag == "health" and status == "503":
                    content["example"]["status"] = "unavailable"


def _complete_parameter(parameter: Schema, schemas: Schema) -> None:
    name = parameter["name"]
    if parameter["in"] != "query":
        parameter["description"] = _PARAMETERS[name]
    parameter["example"] = example(parameter["schema"], schemas, name)


def _place_mistakes(examples: Schema, operation: Schema) -> None:
    """Have the example of a mistake in the input stand where the operation takes input."""
    if "invalid_input" in examples and "requestBody" not in operation:
        parameter = operation["parameters"][-1]
        examples["invalid_input"]["value"]["errors"] = [
            {"location": f"{parameter['in']}.{parameter['name']}", "message": "the value is not acceptable"}
        ]


def _complete_body(body: Schema, schemas: Schema, sample: Schema | None) -> None:
    content = body["content"]["application/json"]
    _drop_defaults(content["schema"], schemas)
    choices = [choice for choice in content["schema"].get("anyOf", ()) if choice != {"type": "null"}]
    if len(choices) == 1:
        # A body that may be left out is not one that may be null: generators make two types of that.
        content["schema"] = choices[0]
        body["required"] = False
    content["example"] = sample if sample is not None else example(content["schema"], schemas)


def _drop_defaults(schema: Schema, schemas: Schema) -> None:
    """Leave out what a field is if it is left out: generators take it for one that is always there."""
    for choice in schema.get("anyOf", [schema]):
        found = schemas.get(choice.get("$ref", "").rpartition("/")[2], {})
        required = found.get("required", ())
        for name, field in found.get("properties", {}).items():
            if name not in required:
                field.pop("default", None)


def example(schema: Schema, schemas: Schema, name: str = "") -> Any:
    """Return a value that fits a schema, as it may come in practice."""
    if "$ref" in schema:
        return example(schemas[schema["$ref"].rpartition("/")[2]], schemas, name)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return _SAMPLES[name] if _SAMPLES.get(name) in schema["enum"] else schema["enum"][0]
    if "properties" in schema:
        return {key: example(value, schemas, key) for key, value in schema["properties"].items()}
    for choices in (schema.get("anyOf"), schema.get("oneOf"), schema.get("allOf")):
        if choices:
            kinds = [choice for choice in choices if choice != {"type": "null"}]
            is_null = not kinds or (len(kinds) < len(choices) and _SAMPLES.get(name, name) is None)
            return None if is_null else example({**kinds[0], **_bounds(schema)}, schemas, name)
    return _plain(schema, schemas, name)


def _bounds(schema: Schema) -> Schema:
    return {key: value for key, value in schema.items() if key in {"pattern", "maxLength"}}


def _plain(schema: Schema, schemas: Schema, name: str) -> Any:
    kind = schema.get("type")
    sample = _SAMPLES.get(name)
    if schema.get("format") == "date-time":
        return _MOMENT
    if kind == "array":
        if isinstance(sample, list) and (not sample or "$ref" not in schema.get("items", {})):
            return sample
        return [example(schema.get("items", {}), schemas, name if name in _SAMPLES else name.removesuffix("s"))]
    if type(sample).__name__ == _PYTHONS.get(str(kind)):
        return sample
    if kind == "string" and (pattern := schema.get("pattern", "")).startswith("^") and pattern[1:-1].isalnum():
        return pattern[1:-1]
    return {"string": "example", "integer": schema.get("minimum", 1), "number": 1.5, "boolean": True, "object": {}}.get(
        str(kind)
    )
