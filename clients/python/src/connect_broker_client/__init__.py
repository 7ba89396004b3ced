"""A client for the Connect Broker's service API. Fits brokers of the 0.2 line, whose API is `/v1`."""

from connect_broker_client.aio import AsyncBroker
from connect_broker_client.blocking import Broker
from connect_broker_client.calls import Retries
from connect_broker_client.errors import (
    AccountUnusable,
    BrokerError,
    KeyRefused,
    NeedsReauth,
    NotAllowed,
    NotFound,
    NotLinked,
    NotUsable,
    PositionGone,
    PushRefused,
    RequestRefused,
    StateChanged,
    TellOperator,
    TryLater,
)
from connect_broker_client.models import Account, AuthLink, Event, Owner, PushMessage, Session, UserToken
from connect_broker_client.push import Push

__version__ = "0.2.0"

__all__ = [
    "Account",
    "AccountUnusable",
    "AsyncBroker",
    "AuthLink",
    "Broker",
    "BrokerError",
    "Event",
    "KeyRefused",
    "NeedsReauth",
    "NotAllowed",
    "NotFound",
    "NotLinked",
    "NotUsable",
    "Owner",
    "PositionGone",
    "Push",
    "PushMessage",
    "PushRefused",
    "RequestRefused",
    "Retries",
    "Session",
    "StateChanged",
    "TellOperator",
    "TryLater",
    "UserToken",
]
