"""Asking policy over HTTP."""

from typing import Annotated

from fastapi import APIRouter, Depends

from app.http.callers import RuntimeDep, requires
from app.http.problems import OF_SERVICES, WITH_BODY, documented
from app.identity.caller import Scope, Service
from app.policy.rules import consider, decide
from app.policy.schemas import ExplainRequest, Explanation

service = APIRouter(prefix="/v1/policy", tags=["service"])

PolicyReader = Annotated[Service, Depends(requires(Scope.POLICY_READ))]


@service.post(
    "/explain",
    operation_id="explainPolicy",
    summary="Ask what policy decides about a request: which rule decides, and why",
    responses=documented(*OF_SERVICES, *WITH_BODY),
)
async def explain_policy(body: ExplainRequest, caller: PolicyReader, runtime: RuntimeDep) -> Explanation:
    # A key that is limited to some owners must not find out what is allowed to others.
    caller.require(Scope.POLICY_READ, body.owner_id)
    request = body.request(runtime.settings.sessions)
    considered = consider(runtime.policy, request)
    if caller.owner_ids is not None:
        # Rules are often named after the customers that they are for.
        considered = [entry for entry in considered if not entry.is_for_others]
    return Explanation.of(decide(runtime.policy, request), considered)
