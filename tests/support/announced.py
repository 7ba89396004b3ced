"""Each failure that a test meets is one that the OpenAPI document announces for its route."""

import re
from collections.abc import Mapping
from typing import Any, Final

import httpx2
from fastapi import FastAPI

_PROBLEM: Final = "application/problem+json"
# Answered before a route is found, or by a mistake of ours: possible everywhere, and so announced nowhere.
GENERAL_CODES: Final = frozenset(
    {
        "head_too_large",
        "http_error",
        "internal_error",
        "method_not_allowed",
        "request_timeout",
        "unsupported_media_type",
    }
)


def announced_codes(operation: Mapping[str, Any]) -> set[tuple[int, str]]:
    """Return the failures that an operation announces: status and code."""
    return {
        (int(status), code)
        for status, response in operation["responses"].items()
        for code in response.get("content", {}).get(_PROBLEM, {}).get("examples", {})
    }


class Announced:
    """What the document of an app announces."""

    def __init__(self, web: FastAPI) -> None:
        """Keep the app; its document is read when the first failure comes."""
        self._web = web
        self._operations: list[tuple[str, re.Pattern[str], set[tuple[int, str]]]] | None = None

    async def check(self, response: httpx2.Response) -> None:
        """Fail unless a failure is announced; a hook of the client's."""
        if response.headers.get("content-type") != _PROBLEM:
            return
        await response.aread()
        code = response.json()["code"]
        method, path = response.request.method, response.request.url.path
        for each, pattern, announced in self._read():
            if each == method and pattern.fullmatch(path):
                is_announced = code in GENERAL_CODES or (response.status_code, code) in announced
                assert is_announced, f"{method} {pattern.pattern} does not announce {response.status_code} {code}"
                return

    def _read(self) -> list[tuple[str, re.Pattern[str], set[tuple[int, str]]]]:
        if self._operations is None:
            self._operations = [
                (method.upper(), re.compile(re.sub(r"\{\w+\}", "[^/]+", path)), announced_codes(operation))
                for path, item in self._web.openapi()["paths"].items()
                for method, operation in item.items()
            ]
        return self._operations
