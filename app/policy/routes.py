"""Asking policy over HTTP."""

from typing import Annotated

from fastapi import APIRouter, Depends

from app.http.callers import RuntimeDep, requires
from app.http.problems import documented
from app.identity.caller import Scope, Service
from app.policy.rules import consider, decide
from app.policy.schemas import ExplainRequest, Explanation

service = APIRouter(prefix="/v1/policy", tags=["service"])

PolicyReader = Annotated[Service, Depends(requires(Scope.POLICY_READ))]


@service.post(
    "/explain",
    summary="Ask what policy decides about a request: which rule decides, and why",
    responses=documented(401, 403, 413, 422, 429, 503),
)
async def explain_policy(  # noqa: D103
    body: ExplainRequest, caller: PolicyReader, runtime: RuntimeDep
) -> Explanation:
    # A key that is limited to some owners must not find out what is allowed to others.
    caller.require(Scope.POLICY_READ, body.owner_id)
    request = body.request(runtime.settings.sessions)
    return Explanation.of(decide(runtime.policy, request), consider(runtime.policy, request))
