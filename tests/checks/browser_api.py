"""The part of the OpenAPI document that a browser may call: what the page's types are generated from."""

import json
from typing import Any


def browser_document(whole: dict[str, Any]) -> str:
    """Return the document as JSON, reduced to the browser's channel: a page cannot call what services may."""
    schemas = whole["components"]["schemas"]
    paths = {
        path: {method: operation for method, operation in item.items() if "browser" in operation.get("tags", [])}
        for path, item in whole["paths"].items()
    }
    paths = {path: item for path, item in paths.items() if item}
    kept = _referenced(paths, schemas, frozenset())
    document = {
        "openapi": whole["openapi"],
        "info": {"title": whole["info"]["title"], "version": whole["info"]["version"]},
        "paths": paths,
        "components": {"schemas": {name: schemas[name] for name in sorted(kept)}},
    }
    return json.dumps(document, indent=2, sort_keys=True) + "\n"


def _referenced(part: object, schemas: dict[str, Any], found: frozenset[str]) -> frozenset[str]:
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
