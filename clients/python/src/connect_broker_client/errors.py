"""What can go wrong, named by what to do next.

BrokerError
    RequestRefused       fix the code: the request makes no sense to the broker (400, 405, 413, 415, 422)
    KeyRefused           get another service key: missing, expired or revoked (401)
    NotAllowed           ask for the scope or the owner, or change the policy (403)
    NotFound             it does not exist for this key (404)
    StateChanged         read the present state and decide anew (409, 410)
        PositionGone     start the copy anew: the feed cannot be gone on from there (410)
    TryLater             the broker or something behind it is away: come back after `retry_after` seconds (429, 503)
    TellOperator         the operator has to act: StackOne refuses the broker, or the broker is broken (502, other)
    AccountUnusable      there is no account to work with
        NotLinked        have somebody link one: `connect_link()`
        NeedsReauth      have somebody sign in anew: `reconnect_link()`
        NotUsable        neither helps: it is suspended, or is being disconnected
    PushRefused          answer 400: the message is not the broker's, or is too old
"""

from typing import Any

from connect_broker_client.models import Account


class BrokerError(Exception):
    """Base of everything that this package raises."""

    remedy = "see the message"

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
        errors: tuple[tuple[str, str], ...] = (),
    ) -> None:
        """Keep what the broker said; `errors` are (location, message) of each refused input."""
        told = "; ".join((message, *(f"{location}: {why}" for location, why in errors)))
        super().__init__(f"{told} (request {request_id})" if request_id else told)
        self.status = status
        self.code = code
        self.request_id = request_id
        self.retry_after = retry_after
        self.errors = errors


class RequestRefused(BrokerError):
    """The request makes no sense to the broker."""

    remedy = "fix the code; `errors` says which input and why"


class KeyRefused(BrokerError):
    """The broker does not accept the service key."""

    remedy = "use a valid key: broker service-keys create, or rotate"


class NotAllowed(BrokerError):
    """The key is genuine and may not do this."""

    remedy = "use a key with the scope and the owner, or change the broker's policy"


class NotFound(BrokerError):
    """It does not exist for this key."""

    remedy = "check the id; what belongs to owners that the key is not for looks the same"


class StateChanged(BrokerError):
    """The request clashes with the present state."""

    remedy = "read the present state and decide anew"


class PositionGone(StateChanged):
    """The feed cannot be gone on from there: it was restored from a backup, or the changes are no longer kept."""

    remedy = "start the copy anew from a snapshot; mirror() does it by itself"


class TryLater(BrokerError):
    """The broker or something behind it is away, and retries did not outlast it."""

    remedy = "come back after `retry_after` seconds"


class TellOperator(BrokerError):
    """Somebody has to act on the broker's side."""

    remedy = "tell the broker's operator the request id"


class AccountUnusable(BrokerError):
    """There is no account to work with."""

    def __init__(self, message: str, *, account: Account | None = None) -> None:
        """Keep the account, where there is one."""
        super().__init__(message)
        self.account = account


class NotLinked(AccountUnusable):
    """The owner has no account of the provider."""

    remedy = "send somebody connect_link()"

    def connect_link(self, *, expires_in: int | None = None) -> Any:
        """Make a link to link one with, when called; to be awaited where the error comes from an AsyncBroker."""
        raise NotImplementedError


class NeedsReauth(AccountUnusable):
    """Somebody has to sign in to the provider anew."""

    remedy = "send somebody reconnect_link()"
    account: Account

    def reconnect_link(self, *, expires_in: int | None = None) -> Any:
        """Make a link to sign in with, when called; to be awaited where the error comes from an AsyncBroker."""
        raise NotImplementedError


class NotUsable(AccountUnusable):
    """The account is there and does not work, and signing in anew does not help."""

    remedy = "look at account.status and account.leaving"
    account: Account


class PushRefused(BrokerError):
    """The message was not signed with one of the secrets, or not recently."""

    remedy = "answer 400; if the broker sent it, compare the secrets and the clocks"
