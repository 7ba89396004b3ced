"""Requests go to their route at once: what the framework would find out anew for each is found out once, at the start.

Dependencies become a list of calls, a query is read once for all who send the same, and a result, which is of the
declared model, is written as it is. What is validated, in which order, and what is answered stay FastAPI's: a request
that is not as requests usually are goes on to the framework, and so does every route that has more to it (ADR 8).
"""

import inspect
import json
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import request_body_to_args, request_params_to_args
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic_core import PydanticUndefined
from starlette.convertors import StringConvertor
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_MOST_QUERIES: Final = 256
_LONGEST_QUERY: Final = 256

OnError = Callable[[Request, Exception], Awaitable[Response]]


@dataclass(frozen=True)
class Limited:
    """A route, and how many bytes the body of its requests may have."""

    route: APIRoute
    max_body_size: int


@dataclass(frozen=True)
class _Entry:
    """Where a request goes."""

    lean: "Lean"
    max_body_size: int


class Table:
    """Which request goes to which route, by method and path."""

    def __init__(self, routes: Iterable[Limited]) -> None:
        """`routes` come in the order in which the framework tries them."""
        # None: the framework's, since there is more to the route.
        self._by_path: dict[tuple[str, str], _Entry | None] = {}
        self._by_pattern: dict[str, list[tuple[re.Pattern[str], _Entry | None]]] = {}
        for limited in routes:
            self._add(limited)

    def find(self, method: str, path: str) -> tuple[_Entry, dict[str, str]] | None:
        """Return where a request goes, with the parameters of its path; None where only the framework can tell."""
        if (method, path) in self._by_path:
            entry = self._by_path[method, path]
            return None if entry is None else (entry, {})
        for pattern, entry in self._by_pattern.get(method, ()):
            found = pattern.match(path)
            if found is not None:
                return None if entry is None else (entry, found.groupdict())
        return None

    def _add(self, limited: Limited) -> None:
        route = limited.route
        lean = lean_of(route)
        entry = None if lean is None else _Entry(lean, limited.max_body_size)
        for method in route.methods or ():
            patterns = self._by_pattern.setdefault(method, [])
            if route.param_convertors:
                patterns.append((route.path_regex, entry))
            elif not any(pattern.match(route.path) for pattern, _ in patterns):
                self._by_path.setdefault((method, route.path), entry)


class Direct:
    """Sends requests to their routes; the innermost middleware, beside the framework's own router."""

    def __init__(self, app: ASGIApp, *, table: Table, on_errors: Mapping[Any, Any]) -> None:
        """`on_errors` says how the application answers exceptions, by their type."""
        self._app = app
        self._table = table
        self._on_errors = on_errors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope.get("root_path"):
            await self._app(scope, receive, send)
            return
        found = self._table.find(scope["method"], scope["path"])
        if found is None:
            await self._app(scope, receive, send)
            return
        lean = found[0].lean
        scope["path_params"] = found[1]
        scope["route"] = lean.route
        request = Request(scope, receive, send)
        respond = self._app
        try:
            # Whoever may not call is told so before a body is asked for (Expect: 100-continue), or kept.
            known = await lean.depended_on(request)
            if _is_within(scope["headers"], found[0].max_body_size):
                respond = await lean.answer(request, known)
        except OddBody as odd:
            receive = odd.again(receive)
        except Exception as error:
            on_error = self._on_error(error)
            if on_error is None:
                raise
            respond = await on_error(request, error)
        await respond(scope, receive, send)

    def _on_error(self, error: Exception) -> OnError | None:
        found: OnError | None = next(
            (self._on_errors[kind] for kind in type(error).__mro__ if kind in self._on_errors), None
        )
        return found


def _is_within(headers: Sequence[tuple[bytes, bytes]], max_body_size: int) -> bool:
    """Tell whether a body has a length that may be read; that it has no more than it says, the server sees to."""
    for name, value in headers:
        if name == b"content-length":
            if not value.isdigit() or int(value) > max_body_size:
                return False
        elif name == b"transfer-encoding":
            return False
    return True


@dataclass(frozen=True)
class _Step:
    """One dependency: what is called, and with what that was found before it."""

    call: Callable[..., Awaitable[Any]]
    request_name: str | None
    needs: tuple[tuple[str, object], ...]


def lean_of(route: APIRoute) -> "Lean | None":
    """Return what answers the usual requests of a route; None if there is more to it."""
    own = route.dependant
    more = (own.header_params, own.cookie_params, own.response_param_name, own.background_tasks_param_name)
    shaped = (
        route.response_model_include,
        route.response_model_exclude,
        route.response_model_exclude_unset,
        route.response_model_exclude_defaults,
        route.response_model_exclude_none,
    )
    is_plain = (
        inspect.iscoroutinefunction(route.endpoint)
        and isinstance(route.response_model, type)
        and issubclass(route.response_model, BaseModel)
        and all(isinstance(convertor, StringConvertor) for convertor in route.param_convertors.values())
        and not any(more)
        and not any(shaped)
    )
    steps = _steps_of(own) if is_plain else None
    return None if steps is None else Lean(route, steps)


def _steps_of(dependant: Dependant) -> list[_Step] | None:
    """Put the dependencies of a route into the order in which FastAPI calls them; None if one is of another kind."""
    steps: dict[object, _Step] = {}

    def add(needed_by: Dependant) -> bool:
        for each in needed_by.dependencies:
            if each.call in steps:
                continue
            if not _is_simple(each) or not add(each):
                return False
            assert each.call is not None  # noqa: S101  so says `_is_simple`
            steps[each.call] = _Step(
                each.call, each.request_param_name or each.http_connection_param_name, _needs(each)
            )
        return True

    return list(steps.values()) if add(dependant) else None


def _needs(dependant: Dependant) -> tuple[tuple[str, object], ...]:
    return tuple((each.name, each.call) for each in dependant.dependencies if each.name is not None)


def _is_simple(dependant: Dependant) -> bool:
    own = dependant
    fields = (own.path_params, own.query_params, own.header_params, own.cookie_params, own.body_params)
    more = (own.response_param_name, own.background_tasks_param_name, own.security_scopes_param_name, own.concurrency)
    is_coroutine = inspect.iscoroutinefunction(own.call) or inspect.iscoroutinefunction(getattr(own.call, "__call__"))  # noqa: B004, B009
    return own.use_cache and is_coroutine and not any(fields) and not any(more)


class Lean:
    """Answers the usual requests of one route."""

    def __init__(self, route: APIRoute, steps: list[_Step]) -> None:
        """`steps` are its dependencies."""
        assert route.response_field is not None  # noqa: S101  it has a model
        self.route = route
        self._own = route.dependant
        self._steps = steps
        self._needs = _needs(route.dependant)
        self._model = route.response_model
        self._write = route.response_field.serialize_json
        self._status = route.status_code or 200
        self._short_query = lru_cache(maxsize=_MOST_QUERIES)(self._query)

    async def answer(self, request: Request, known: dict[str, Any]) -> Response:
        """Answer one request; `known` is what its dependencies said. Raises what the route raises, and OddBody."""
        body: Any = PydanticUndefined
        if self.route.body_field is not None:
            body = await _body(request)
        errors = await self._add_input(known, request, body)
        if errors:
            raise RequestValidationError(errors, body=None if body is PydanticUndefined else body)
        result = await self.route.endpoint(**known)
        if isinstance(result, Response):
            return result
        if type(result) is not self._model:
            message = f"{self.route.name} returned {type(result).__name__} instead of {self._model.__name__}"
            raise TypeError(message)
        return Response(self._write(result), self._status, media_type="application/json")

    async def depended_on(self, request: Request) -> dict[str, Any]:
        """Call the dependencies; return those that the endpoint itself asks for."""
        found: dict[object, Any] = {}
        for step in self._steps:
            arguments = {name: found[call] for name, call in step.needs}
            if step.request_name is not None:
                arguments[step.request_name] = request
            found[step.call] = await step.call(**arguments)
        return {name: found[call] for name, call in self._needs}

    async def _add_input(self, arguments: dict[str, Any], request: Request, body: Any) -> list[Any]:
        """Validate path, query and body; return what is wrong with them."""
        own, errors = self._own, list[Any]()
        if own.path_params:
            values, wrong = request_params_to_args(own.path_params, request.path_params)
            arguments.update(values)
            errors += wrong
        if own.query_params:
            text = request.scope["query_string"]
            values, wrong = (self._short_query if len(text) <= _LONGEST_QUERY else self._query)(text)
            arguments.update(values)
            errors += wrong
        if own.body_params:
            embed = self.route._embed_body_fields  # noqa: SLF001  as FastAPI's own handler is told
            values, wrong = await request_body_to_args(own.body_params, body, embed)
            arguments.update(values)
            errors += wrong
        if own.request_param_name is not None:
            arguments[own.request_param_name] = request
        return errors

    def _query(self, text: bytes) -> tuple[dict[str, Any], list[Any]]:
        return request_params_to_args(self._own.query_params, QueryParams(text))


class OddBody(Exception):
    """A body that FastAPI has to judge."""

    def __init__(self, body: bytes) -> None:
        """`body` has been read, to its end."""
        super().__init__()
        self._body = body

    def again(self, receive: Receive) -> Receive:
        """Return what reads the body once more, and then what comes after it."""
        unread = [self._body]

        async def read() -> Message:
            if unread:
                return {"type": "http.request", "body": unread.pop(), "more_body": False}
            return await receive()

        return read


async def _body(request: Request) -> Any:
    """Return the JSON of a body, or PydanticUndefined if there is none. Raises OddBody for anything else."""
    text = await request.body()
    if not text:
        return PydanticUndefined
    kind, _, _parameters = request.headers.get("content-type", "").partition(";")
    if kind.strip().lower() != "application/json":
        raise OddBody(text)
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise OddBody(text) from None
