"""Actions: what agents do at a provider through StackOne, as far as the vendor's Python toolset needs it.

`POST /mcp` lists an account's actions (Model Context Protocol 2025-06-18, streamable HTTP without a session), and
`POST /actions/rpc` carries one out. Source: the package `stackone-ai`; no document describes either.
"""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Header
from fastapi.responses import JSONResponse, Response
from pydantic import Field

from sandbox.bodies import Body, JsonObject, Text
from sandbox.errors import ApiError
from sandbox.stackone.accounts import Account
from sandbox.stackone.parts import TheProject, require_api_key
from sandbox.stackone.project import Project

router = APIRouter(dependencies=[Depends(require_api_key)])

_LIST_EMPLOYEES: Final = "list_employees"
_EMPLOYEES: Final = ({"id": "e1", "name": "Ada Example"}, {"id": "e2", "name": "Ben Example"})
_UNKNOWN_METHOD: Final = -32601


class _Message(Body):
    jsonrpc: Text
    method: Text
    id: Any = None
    params: JsonObject = Field(default_factory=dict)


class _Call(Body):
    action: Text
    headers: JsonObject = Field(default_factory=dict)
    path: JsonObject = Field(default_factory=dict)
    query: JsonObject = Field(default_factory=dict)
    body: JsonObject = Field(default_factory=dict)


@router.post("/mcp")
async def speak_mcp(
    project: TheProject, message: _Message, x_account_id: Annotated[str | None, Header()] = None
) -> Response:
    """Answer one message of the Model Context Protocol."""
    account = _account(project, x_account_id)
    if message.id is None:
        return Response(status_code=202)
    results: dict[str, JsonObject] = {
        "initialize": {
            "protocolVersion": message.params.get("protocolVersion"),
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "stackone", "version": "1"},
        },
        "ping": {},
        "tools/list": {
            "tools": [
                {
                    "name": f"{account.provider}_{_LIST_EMPLOYEES}",
                    "description": f"List the employees in {account.provider}",
                    "inputSchema": {"type": "object", "properties": {"query_limit": {"type": "integer"}}},
                }
            ]
        },
    }
    answer: JsonObject = {"jsonrpc": "2.0", "id": message.id}
    if message.method in results:
        return JSONResponse({**answer, "result": results[message.method]})
    return JSONResponse({**answer, "error": {"code": _UNKNOWN_METHOD, "message": "Method not found"}})


@router.post("/actions/rpc")
async def act(project: TheProject, call: _Call, x_account_id: Annotated[str | None, Header()] = None) -> JSONResponse:
    """Carry an action out with an account's credentials."""
    account = _account(project, x_account_id)
    if call.action != f"{account.provider}_{_LIST_EMPLOYEES}":
        raise ApiError(404, f"Action {call.action} not found")
    return JSONResponse({"data": _EMPLOYEES[: call.query.get("limit", len(_EMPLOYEES))]})


def _account(project: Project, account_id: str | None) -> Account:
    account = project.accounts.find(account_id or "")
    if account is None:
        raise ApiError(404, "Account not found")
    if account.status != "active":
        raise ApiError(401, "The account's credentials are not valid")
    return account
