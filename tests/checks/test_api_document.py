"""The OpenAPI document says of every operation what a stranger and a generator of clients need."""

import re
from typing import Any

import pytest
from jsonschema_rs import Draft202012Validator

from app.http.document import error_codes, operations
from app.identity.caller import Scope
from tests.checks.pages import openapi_document
from tests.support.announced import GENERAL_CODES, announced_codes

DOCUMENT = openapi_document()
OPERATIONS = dict(operations(DOCUMENT))
STATUSES = {code: status for operation in OPERATIONS.values() for status, code in announced_codes(operation)}
_CAMEL = re.compile(r"[a-z]+(?:[A-Z][a-zA-Z]*)*")


def fits(value: Any, schema: dict[str, Any]) -> list[str]:
    """Return what is wrong with a value."""
    whole = {**schema, "components": DOCUMENT["components"]}
    return [error.message for error in Draft202012Validator(whole).iter_errors(value)]


def test_ids_are_stable_names_each_given_once() -> None:
    ids = [operation["operationId"] for operation in OPERATIONS.values()]
    assert [name for name in ids if not _CAMEL.fullmatch(name) or ids.count(name) > 1] == [], (
        "say operation_id='verbThing' where the route is made"
    )


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_says_what_it_needs_and_shows_what_it_answers(name: str) -> None:
    operation = OPERATIONS[name]
    assert operation["summary"]
    assert operation["description"] != operation["summary"]
    if operation.get("tags") == ["service"]:
        assert operation["x-required-scope"] in {scope.value for scope in Scope}
    contents = [
        content
        for part in (operation.get("requestBody", {}), *operation["responses"].values())
        for content in part.get("content", {}).values()
    ]
    for content in contents:
        for shown in [value["value"] for value in content.get("examples", {}).values()] or [content["example"]]:
            assert fits(shown, content["schema"]) == [], shown
    for parameter in operation.get("parameters", ()):
        assert parameter["description"]
        assert fits(parameter["example"], parameter["schema"]) == [], parameter
    for status, response in operation["responses"].items():
        assert "X-Request-ID" in response["headers"], status
        assert ("Retry-After" in response["headers"]) == (status in {"409", "429", "503"}), status


def test_a_body_that_may_be_left_out_is_not_one_that_may_be_null() -> None:
    for name, operation in OPERATIONS.items():
        for content in operation.get("requestBody", {}).get("content", {}).values():
            assert "anyOf" not in content["schema"], name


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_channel_announces_what_its_credential_can_be_refused_for(name: str) -> None:
    operation = OPERATIONS[name]
    channel = next(iter(operation.get("tags", ())), "")
    refusals = {
        "browser": {(401, "unauthenticated"), (403, "csrf"), (429, "too_many_requests"), (503, "overloaded")},
        "service": {(401, "unauthenticated"), (403, "insufficient_scope"), (429, "too_many_requests")},
        "webhook": {(401, "unauthenticated"), (503, "overloaded")},
    }
    takes: set[tuple[int, str]] = set()
    if channel and operation.get("parameters"):
        takes |= {(422, "invalid_input")}
    if channel and "requestBody" in operation:
        takes |= {(413, "payload_too_large"), (422, "invalid_input")}
    announced = announced_codes(operation)
    assert refusals.get(channel, set()) | takes <= announced
    assert all(status == STATUSES[code] for status, code in announced)


def test_every_code_stands_in_the_document() -> None:
    codes = DOCUMENT["components"]["schemas"]["Problem"]["properties"]["code"]["enum"]
    assert set(codes) == error_codes()
    assert {"unauthenticated", "being_disconnected", "already_linked", "csrf"} <= set(codes)
    # What is answered before a route is found.
    before = {"overloaded", "request_timeout", "head_too_large", "method_not_allowed", "unsupported_media_type"}
    assert before | {"http_error", "internal_error"} <= set(codes)


def test_each_code_that_an_operation_can_raise_has_one_place() -> None:
    shown = {code for operation in OPERATIONS.values() for _, code in announced_codes(operation)}
    assert shown == error_codes() - GENERAL_CODES


def test_what_is_posted_to_destinations_is_typed() -> None:
    message = DOCUMENT["webhooks"]["account.changed"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert message == {"$ref": "#/components/schemas/ChangeMessage"}
    kinds = DOCUMENT["components"]["schemas"]["ChangeMessage"]["properties"]["type"]["enum"]
    assert {"account.linked", "account.needs_reauth", "account.still_broken"} <= set(kinds)
