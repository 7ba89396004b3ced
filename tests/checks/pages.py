"""The files that say what the code says: written by `make docs`, compared by `make check`. No Node is needed."""

import json
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretStr
from pydantic_core import PydanticUndefined, to_jsonable_python

from app.http.document import operations
from app.main import create_app
from app.settings import PREFIX, Section, Settings
from tests.checks.blocking_client import blocking_client, blocking_mirror
from tests.checks.browser_api import browser_document
from tests.support.world import settings_for

ROOT = Path(__file__).resolve().parents[2]

_CONFIGURATION_HEAD = """\
# Configuration

Every setting is an environment variable. Lists and objects are JSON. `broker check-config` reads them all, lists every
mistake at once, and starts nothing; `broker serve` refuses to start in the same way. A setting can also come from a
file: point `BROKER_SECRETS_DIR` at a folder whose files are named like the variables, and what the environment does
not say is read from there.

White space, a trailing newline, one pair of quotes and a byte order mark around a value are taken off, in variables and
in files alike; files may be UTF-16 with a mark. A value that is empty, holds a line break (outside JSON) or characters
that cannot be seen is refused by name. `null` switches off what may be absent. What Kubernetes says of Services called
`broker` or `broker-metrics` (`BROKER_PORT=tcp://...`, `BROKER_SERVICE_HOST` and the like) is ignored.

In production (the default) only https is spoken to StackOne and identity providers, secrets have at least 16
characters, and nothing that `broker-demo` made is accepted. `BROKER_ENVIRONMENT=development` accepts plain http on
loopback, listens on loopback only, and refuses keys that look like real StackOne keys.

Where no example stands, the default shows how a value is written.

This page is written from the code by `make docs`.

"""

_ENDPOINTS_HEAD = """\
# Endpoints

Three channels with three credentials; no route accepts two. What a route takes and answers in detail is in the OpenAPI
document (`/openapi.json`, `/docs`; on in development, and with `BROKER_HTTP__DOCS=true`).

| channel | credential |
|---|---|
| browser | `Authorization: Bearer` with a JWT of your identity provider, or that JWT in a cookie if cookies are on |
| service | `Authorization: Bearer sk_...` (a service key), or a machine's JWT with scopes |
| webhook | StackOne's signature over the raw body, in `x-stackone-signature` |
| health | none |

`GET /metrics` is served on its own listener (`BROKER_METRICS__PORT`), without a credential.

This page is written from the code by `make docs`.

"""


_API_CHANGES = """
## How the API changes

- `/v1` stays. What a client that ignores unknown fields and unknown `code`s relies on does not change within it:
  fields, codes, kinds of changes and routes are added, never removed or given another meaning.
- What is to go is marked `deprecated` in the OpenAPI document and in the changelog, and works for two minor releases at
  least. What cannot go that way gets `/v2`, beside `/v1`.
- Until 1.0 a minor release (0.2.0 is this one) may change `/v1` once more; the changelog's *Renamed* and *Changed* say
  how.
- Releases follow semantic versioning; the document's `info.version` is the broker's. The database's schema says which
  releases may still serve on it ([operations.md](operations.md)).
"""


def configuration_page() -> str:
    """Write docs/configuration.md."""
    parts = [_CONFIGURATION_HEAD]
    plain = {n: f for n, f in Settings.model_fields.items() if section_of(f.annotation) is None}
    parts.append("## General\n\n" + _table(plain, PREFIX))
    for name, field in Settings.model_fields.items():
        section = section_of(field.annotation)
        if section is not None:
            parts.append(
                f"## `{PREFIX}{name.upper()}__*`\n\n{_text(section)}\n\n"
                + _table(section.model_fields, f"{PREFIX}{name.upper()}__")
            )
            parts.extend(_nested(section))
    return "\n".join(parts)


def _nested(section: type[BaseModel]) -> Iterator[str]:
    """Describe the objects that stand inside a section's lists."""
    for name, field in section.model_fields.items():
        inner = section_of(field.annotation)
        if inner is not None:
            yield f"### Members of `{name}`\n\n{_text(inner)}\n\n" + _table(inner.model_fields, "")
            yield from _nested(inner)


def _table(fields: Any, prefix: str) -> str:
    lines = ["| name | default | example | meaning |", "|---|---|---|---|"]
    for name, field in fields.items():
        shown = f"{prefix}{name.upper()}" if prefix else name
        meaning = (field.description or "").replace("|", chr(92) + "|")
        example = f"`{json.dumps(field.examples[0])}`" if field.examples else ""
        lines.append(f"| `{shown}` | {_default(field)} | {example} | {meaning} |")
    return "\n".join(lines) + "\n"


def _default(field: Any) -> str:
    if field.is_required():
        return "**required**"
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined or isinstance(value, BaseModel):
        return "see below"
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    return f"`{json.dumps(to_jsonable_python(value))}`"


def _text(section: type[BaseModel]) -> str:
    return " ".join((section.__doc__ or "").split())


def section_of(annotation: Any) -> type[Section] | None:
    """Find the section inside an annotation such as `tuple[IssuerSettings, ...]` or `CookieSettings | None`."""
    if not typing.get_args(annotation):
        return annotation if isinstance(annotation, type) and issubclass(annotation, Section) else None
    return next((found for part in typing.get_args(annotation) if (found := section_of(part))), None)


def openapi_document() -> dict[str, Any]:
    """Return what the broker says of its API. Nothing is opened or called for it."""
    settings = settings_for(
        database_url="sqlite:///unused.db", stackone_url="http://127.0.0.1:1", issuer="http://127.0.0.1:2"
    )
    return create_app(settings).openapi()


def endpoints_page() -> str:
    """Write docs/endpoints.md."""
    document = openapi_document()
    lines = ["| channel | endpoint | what it does | scope | answers |", "|---|---|---|---|---|"]
    order = ("browser", "service", "webhook", "health")
    found = [
        (order.index(operation["tags"][0]), path, method.upper(), operation)
        for path, item in document["paths"].items()
        for method, operation in item.items()
    ]
    for channel, path, method, operation in sorted(found, key=lambda row: row[:3]):
        statuses = " ".join(operation["responses"])
        scope = f"`{operation['x-required-scope']}`" if "x-required-scope" in operation else ""
        lines.append(f"| {order[channel]} | `{method} {path}` | {operation['summary']} | {scope} | {statuses} |")
    return _ENDPOINTS_HEAD + "\n".join(lines) + "\n\n" + "\n".join(_resources(document)) + _API_CHANGES


# A resource for each heading: the operation whose answer shows it.
_RESOURCES = {
    "A session token": "createConnectSession",
    "A session": "getOwnerConnectSession",
    "A linked account": "getAccount",
    "A change": "listEvents",
    "An owner": "getOwner",
    "A connector": "listOwnerConnectors",
    "An invitation": "createInvitation",
    "Which account to use": "useOwnerProvider",
    "A user token": "createUserToken",
    "An erasure": "getErasure",
    "An error": "createOwnerConnectSession",
}


def _resources(document: dict[str, Any]) -> Iterator[str]:
    """Show each resource as JSON."""
    yield "## Every resource as JSON\n"
    by_id = {operation["operationId"]: operation for _, operation in operations(document)}
    for title, name in _RESOURCES.items():
        responses = by_id[name]["responses"]
        answer = (
            responses["422"] if title == "An error" else next(responses[s] for s in ("200", "201") if s in responses)
        )
        [content] = answer["content"].values()
        shown = content["examples"]["invalid_input"]["value"] if title == "An error" else content["example"]
        if isinstance(shown, dict) and "data" in shown:
            shown = shown["data"][0]
        yield f"### {title}\n\n```json\n{json.dumps(shown, indent=2, ensure_ascii=False)}\n```\n"


def browser_api() -> str:
    """Write packages/connect/openapi.json."""
    return browser_document(openapi_document())


PAGES = {
    "docs/configuration.md": configuration_page,
    "docs/endpoints.md": endpoints_page,
    "packages/connect/openapi.json": browser_api,
    "clients/python/src/connect_broker_client/blocking.py": blocking_client,
    "clients/python/src/connect_broker_client/blocking_mirror.py": blocking_mirror,
}

if __name__ == "__main__":
    for name, write in PAGES.items():
        (ROOT / name).write_text(write(), encoding="utf-8")
