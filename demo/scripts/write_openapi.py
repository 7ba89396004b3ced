# ruff: noqa: INP001 - a script, not a package
"""Write the part of the broker's OpenAPI document that a browser may call, or check that it is up to date.

Run with the broker's own Python. The settings are placeholders: describing the API opens nothing and calls nobody.
"""

import json
import sys
from pathlib import Path
from typing import Any

from app.main import create_app
from app.settings import Settings

_TARGET = Path(__file__).resolve().parents[1] / "openapi.json"
_PLACEHOLDERS: dict[str, Any] = {
    "environment": "development",
    "metrics": {"port": None},
    "stackone": {"api_key": "demo-placeholder-key", "webhook_secrets": ["demo-placeholder-secret"]},
    "database": {"url": "sqlite:///placeholder.db"},
    "identity": {
        "issuers": [{"issuer": "http://127.0.0.1", "audiences": ["connect-broker"], "claims": {"owner_id": "org_id"}}]
    },
    "service_keys": {"pepper": "demo-placeholder-pepper"},
}


def main() -> None:
    """Write the document, or with --check compare it with the one that is there."""
    document = json.dumps(browser_document(), indent=2, sort_keys=True) + "\n"
    if "--check" not in sys.argv[1:]:
        _TARGET.write_text(document)
    elif not _TARGET.is_file() or _TARGET.read_text() != document:
        sys.exit(f"{_TARGET.name} differs from the broker's API: run `npm run generate` and commit the result")


def browser_document() -> dict[str, Any]:
    """Return the document with the browser's channel alone: what services may ask is nothing a page can call."""
    whole = create_app(Settings.model_validate(_PLACEHOLDERS)).openapi()
    schemas = whole["components"]["schemas"]
    paths = {
        path: {method: operation for method, operation in item.items() if "browser" in operation.get("tags", [])}
        for path, item in whole["paths"].items()
    }
    paths = {path: item for path, item in paths.items() if item}
    kept = _referenced(paths, schemas)
    return {
        "openapi": whole["openapi"],
        "info": {"title": whole["info"]["title"], "version": whole["info"]["version"]},
        "paths": paths,
        "components": {"schemas": {name: schemas[name] for name in sorted(kept)}},
    }


def _referenced(part: object, schemas: dict[str, Any], found: frozenset[str] = frozenset()) -> frozenset[str]:
    if isinstance(part, dict):
        name = str(part.get("$ref", "")).removeprefix("#/components/schemas/")
        if name in schemas and name not in found:
            found = _referenced(schemas[name], schemas, found | {name})
        for value in part.values():
            found = _referenced(value, schemas, found)
    elif isinstance(part, list):
        for value in part:
            found = _referenced(value, schemas, found)
    return found


if __name__ == "__main__":
    main()
