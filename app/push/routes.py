"""Push over HTTP: how destinations stand, what is dead and why, replays, and a test message."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from fastapi import Path as PathParameter

from app.errors import NotFound
from app.http.callers import RuntimeDep, requires
from app.http.problems import OF_SERVICES, WITH_PARAMETERS, documented
from app.identity.caller import Scope, Service
from app.inputs import ShortText
from app.push.deliver import list_deliveries, list_destinations, replay_dead, replay_one, send_test
from app.push.messages import ChangeMessage
from app.push.queries import DeliveriesQuery
from app.push.schemas import DeliveryPage, DestinationPage, Replayed, Tested

service = APIRouter(prefix="/v1/push/destinations", tags=["service"])
outgoing = APIRouter()
"""What is posted to destinations, for the OpenAPI document."""


async def _of_all_owners(caller: Annotated[Service, Depends(requires(Scope.PUSH_WRITE))]) -> Service:
    caller.require_all_owners(Scope.PUSH_WRITE)
    return caller


Operator = Annotated[Service, Depends(_of_all_owners)]
Position = Annotated[int, PathParameter(ge=1, le=2**63 - 1)]


@service.get(
    "",
    operation_id="listPushDestinations",
    summary="List push destinations, with how they stand",
    responses=documented(*OF_SERVICES),
)
async def list_push_destinations(_caller: Operator, runtime: RuntimeDep) -> DestinationPage:
    return DestinationPage.of(await list_destinations(runtime))


@service.get(
    "/{destination}/deliveries",
    operation_id="listPushDeliveries",
    summary="List deliveries that wait or were given up, with the reason",
    responses=documented(*OF_SERVICES, *WITH_PARAMETERS, NotFound),
)
async def list_push_deliveries(
    destination: ShortText, _caller: Operator, runtime: RuntimeDep, query: Annotated[DeliveriesQuery, Query()]
) -> DeliveryPage:
    after = int(query.cursor or 0)
    found, has_more = await list_deliveries(runtime, destination, state=query.state, after=after, limit=query.limit)
    return DeliveryPage.of(found, has_more=has_more)


@service.post(
    "/{destination}/replay",
    operation_id="replayPushDeliveries",
    summary="Try a destination's dead deliveries once more",
    responses=documented(*OF_SERVICES, *WITH_PARAMETERS, NotFound),
)
async def replay_push_deliveries(destination: ShortText, _caller: Operator, runtime: RuntimeDep) -> Replayed:
    return Replayed(replayed=await replay_dead(runtime, destination))


@service.post(
    "/{destination}/deliveries/{position}/replay",
    operation_id="replayPushDelivery",
    summary="Deliver one change once more",
    responses=documented(*OF_SERVICES, *WITH_PARAMETERS, NotFound),
)
async def replay_push_delivery(
    destination: ShortText, position: Position, _caller: Operator, runtime: RuntimeDep
) -> Replayed:
    await replay_one(runtime, destination, position)
    return Replayed(replayed=1)


@service.post(
    "/{destination}/test",
    operation_id="testPushDestination",
    summary="Send a destination a test message, now and once",
    responses=documented(*OF_SERVICES, *WITH_PARAMETERS, NotFound),
)
async def send_push_test(destination: ShortText, _caller: Operator, runtime: RuntimeDep) -> Tested:
    failure = await send_test(runtime, destination)
    return Tested(delivered=failure is None, failure=failure)


@outgoing.post("account.changed", operation_id="accountChanged", summary="A change of an account; `type` is its kind")
async def _account_changed() -> ChangeMessage:
    """Stand in for the receiver: what it is sent is declared as an answer, which is how the broker writes it."""
    raise NotImplementedError
