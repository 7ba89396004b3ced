"""House rules that no linter knows, as functions over a tree or over routers: each returns what breaks it."""

import ast
import importlib
import pkgutil
import re
import typing
from collections.abc import Iterator
from pathlib import Path

from fastapi import APIRouter, FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.params import Query
from fastapi.routing import APIRoute
from pydantic import BaseModel

import app

_OPENERS = {"transaction", "reading", "begin", "begin_nested", "connect"}
# The glossary's left-hand side, where a search can tell the old word from plain English.
_REPLACED = re.compile(
    r"(?<![a-z])(?P<word>wish(es|ed)?|(?<!front )doors?|upkeep|brakes?|parcels?|put[ _]off|look-?alikes?|neighbours?"
    r"|mend(s|ed|ing)?|cannot be had|caps|effective|readings|api-keys)(?![a-z])",
    re.IGNORECASE,
)
# Where text from outside becomes a state and a state becomes text: JSON, settings, the policy file, StackOne's words.
_EDGES = ("schemas.py", "settings/", "policy/file.py", "stackone/models.py")


def transactions_in_routes(tree: Path) -> list[str]:
    """Find transactions opened in a route's module: a route is input, one verb, output."""
    return [
        f"{path.relative_to(tree)}:{node.lineno} opens a transaction"
        for path in sorted((tree / "app").rglob("*routes.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _OPENERS
    ]


def states_as_text(tree: Path, excepted: frozenset[str]) -> list[str]:
    """Find sets of texts behind the edge: a plain Enum is wanted, because mypy lets a misspelt text pass for these."""
    found = []
    for path in sorted((tree / "app").rglob("*.py")):
        name = path.relative_to(tree / "app").as_posix()
        if name.endswith(_EDGES) or name.startswith(_EDGES):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.ClassDef(name=label, bases=bases) if any(
                    ast.unparse(base).endswith("StrEnum") for base in bases
                ):
                    pass
                case ast.Subscript(value=ast.Name(id="Literal"), slice=chosen) if _of_texts(chosen):
                    label = ast.unparse(node)
                case _:
                    continue
            if f"{name}: {label}" not in excepted:
                found.append(f"{name}: {label}")
    return found


def _of_texts(chosen: ast.expr) -> bool:
    members = chosen.elts if isinstance(chosen, ast.Tuple) else [chosen]
    return all(isinstance(member, ast.Constant) and isinstance(member.value, str) for member in members)


def plain_enums(tree: Path) -> list[tuple[str, str]]:
    """Return module and name of every plain Enum that the app has on module level."""
    return [
        (".".join(path.relative_to(tree).with_suffix("").parts), node.name)
        for path in sorted((tree / "app").rglob("*.py"))
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef) and [ast.unparse(base) for base in node.bases] == ["Enum"]
    ]


def replaced_words(text: str) -> Iterator[tuple[int, str]]:
    """Find the words that docs/glossary.md replaces, with their lines."""
    for number, line in enumerate(text.splitlines(), 1):
        for found in _REPLACED.finditer(line):
            yield number, found["word"]


def routers_of_the_app() -> list[APIRouter]:
    """Return every router that a module of the app holds."""
    modules = [
        importlib.import_module(found.name)
        for found in pkgutil.walk_packages(app.__path__, "app.")
        if not found.name.endswith("__main__")
    ]
    held = [value for module in modules for value in vars(module).values() if isinstance(value, APIRouter)]
    return list({id(router): router for router in held}.values())


def loose_queries(routers: list[APIRouter]) -> list[str]:
    """Find routes whose query is not one model that refuses unknown names: there a typo answers with everything."""
    return [complaint for router in routers for complaint in _loose_queries_of(router)]


def _loose_queries_of(router: APIRouter) -> Iterator[str]:
    web = FastAPI()
    web.include_router(router)
    paths = web.openapi()["paths"]
    for route in router.routes:
        if not isinstance(route, APIRoute):
            continue
        models = _query_models(route)
        for method in route.methods or ():
            if route.include_in_schema:
                parameters = paths[route.path][method.lower()].get("parameters", [])
                read = {parameter["name"] for parameter in parameters if parameter["in"] == "query"}
            else:
                # It stands in no document, so what it reads is what its function takes.
                read = {
                    parameter.name for dependant in _dependants(route.dependant) for parameter in dependant.query_params
                }
            known = {field.alias or name for model in models for name, field in model.model_fields.items()}
            if read != known or len(models) > 1:
                yield f"{method} {route.path} reads {sorted(read)} from its query, which is not one model"
            elif models and models[0].model_config.get("extra") != "forbid":
                yield f"{method} {route.path} accepts unknown names in its query"


def _dependants(dependant: Dependant) -> Iterator[Dependant]:
    yield dependant
    for inner in dependant.dependencies:
        yield from _dependants(inner)


def _query_models(route: APIRoute) -> list[type[BaseModel]]:
    queries = [
        typing.get_args(hint)[0]
        for hint in typing.get_type_hints(route.endpoint, include_extras=True).values()
        if any(isinstance(mark, Query) for mark in getattr(hint, "__metadata__", ()))
    ]
    return [query for query in queries if isinstance(query, type) and issubclass(query, BaseModel)]
