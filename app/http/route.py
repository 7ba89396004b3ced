"""Routes on which what FastAPI would find out anew for each request is found out once, when the route is made.

Dependencies become a list of calls, a query is read once for all who send the same, and a result, which is of the
declared model, is written as it is. What is validated, in which order, and what is answered stay FastAPI's: a request
that is not as requests usually are is left to FastAPI's own handler, and so is every route that has more to it.
"""

import inspect
import json
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import request_body_to_args, request_params_to_args
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic_core import PydanticUndefined
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response

Handler = Callable[[Request], Coroutine[Any, Any, Response]]

_MOST_QUERIES: Final = 256
_LONGEST_QUERY: Final = 256
# Set where FastAPI traces: its own handler then tells the parts of a request from each other.
_TRACED: Final = "fastapi.telemetry"


class Route(APIRoute):
    """A route of the broker."""

    def get_route_handler(self) -> Handler:
        """Return what answers a request of this route."""
        usual = super().get_route_handler()
        steps = _steps_of(self.dependant)
        if steps is None or not self._is_plain:
            return usual
        return _Lean(self, steps, usual).answer

    @property
    def _is_plain(self) -> bool:
        own = self.dependant
        more = (own.header_params, own.cookie_params, own.response_param_name, own.background_tasks_param_name)
        shaped = (
            self.response_model_include,
            self.response_model_exclude,
            self.response_model_exclude_unset,
            self.response_model_exclude_defaults,
            self.response_model_exclude_none,
        )
        return (
            inspect.iscoroutinefunction(self.endpoint)
            and isinstance(self.response_model, type)
            and issubclass(self.response_model, BaseModel)
            and not any(more)
            and not any(shaped)
        )


@dataclass(frozen=True)
class _Step:
    """One dependency: what is called, and with what that was found before it."""

    call: Callable[..., Awaitable[Any]]
    request_name: str | None
    needs: tuple[tuple[str, object], ...]


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


class _Lean:
    """Answers the requests of one route."""

    def __init__(self, route: Route, steps: list[_Step], usual: Handler) -> None:
        assert route.response_field is not None  # noqa: S101  it has a model
        self._route = route
        self._own = route.dependant
        self._steps = steps
        self._needs = _needs(route.dependant)
        self._usual = usual
        self._model = route.response_model
        self._write = route.response_field.serialize_json
        self._status = route.status_code or 200
        self._short_query = lru_cache(maxsize=_MOST_QUERIES)(self._query)

    async def answer(self, request: Request) -> Response:
        """Answer one request."""
        if _TRACED in request.scope:
            return await self._usual(request)
        body: Any = PydanticUndefined
        if self._route.body_field is not None:
            try:
                body = await _body(request)
            except _OddBody as odd:
                return await self._usual(odd.request)
        arguments = await self._depended_on(request)
        errors = await self._add_input(arguments, request, body)
        if errors:
            raise RequestValidationError(errors, body=None if body is PydanticUndefined else body)
        result = await self._route.endpoint(**arguments)
        if isinstance(result, Response):
            return result
        if type(result) is not self._model:
            message = f"{self._route.name} returned {type(result).__name__} instead of {self._model.__name__}"
            raise TypeError(message)
        return Response(self._write(result), self._status, media_type="application/json")

    async def _depended_on(self, request: Request) -> dict[str, Any]:
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
            embed = self._route._embed_body_fields  # noqa: SLF001  as FastAPI's own handler is told
            values, wrong = await request_body_to_args(own.body_params, body, embed)
            arguments.update(values)
            errors += wrong
        if own.request_param_name is not None:
            arguments[own.request_param_name] = request
        return errors

    def _query(self, text: bytes) -> tuple[dict[str, Any], list[Any]]:
        return request_params_to_args(self._own.query_params, QueryParams(text))


class _OddBody(Exception):
    """A body that FastAPI has to judge, and the request to give it."""

    def __init__(self, request: Request) -> None:
        super().__init__()
        self.request = request


async def _body(request: Request) -> Any:
    """Return the JSON of a body, or PydanticUndefined if there is none. Raises _OddBody for anything else."""
    try:
        text = await request.body()
    except Exception as error:

        async def fail(seen: Exception = error) -> Any:
            raise seen

        raise _OddBody(Request(request.scope, fail)) from error
    if not text:
        return PydanticUndefined
    kind, _, _parameters = request.headers.get("content-type", "").partition(";")
    if kind.strip().lower() != "application/json":
        raise _OddBody(request)
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise _OddBody(request) from None
