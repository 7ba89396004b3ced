"""StackOne's API as the broker uses it: each operation it knows, and the answer as a model."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import TypeVar
from urllib.parse import quote

import structlog
from pydantic import ValidationError

from app.clock import Clock
from app.errors import UpstreamRejected
from app.metrics import Metrics
from app.settings import StackOneSettings
from app.stackone.budget import Budget, Priority
from app.stackone.call import Call, Calls, Transport
from app.stackone.models import (
    Account,
    AccountPage,
    AuthConfig,
    AuthenticatedSession,
    ConnectSession,
    OwnedConnectSessionRequest,
)
from app.stackone.refusals import Refused, mint_refusal

logger = structlog.get_logger(__name__)

_AUTH_CONFIG_PAGE_SIZE = 100
_MOST_AUTH_CONFIG_PAGES = 50
# How each accounts path names the filter by owner.
_OWNER_FILTERS = {"/accounts": "origin_owner_id", "/v2/accounts": "owner_id"}


class AnotherProject(UpstreamRejected):
    """StackOne answered with an account of another project than the one that is configured."""

    def __init__(self) -> None:
        """Say so."""
        super().__init__("StackOne answered with an account of another project; check the API key")


class StackOneClient:
    """StackOne's operations.

    Each raises Unavailable when StackOne is away, and UpstreamRejected when it refuses what we sent or answers with
    something that cannot be read.
    """

    def __init__(
        self,
        settings: StackOneSettings,
        *,
        clock: Clock,
        metrics: Metrics,
        budget: Budget | None = None,
        transport: Transport,
    ) -> None:
        """Open nothing yet; see `Calls`."""
        self._metrics = metrics
        self._accounts_path = settings.accounts_path
        self._project_id = settings.project_id
        self._calls = Calls(settings, clock=clock, metrics=metrics, budget=budget, transport=transport)

    async def close(self) -> None:
        """Close every connection."""
        await self._calls.close()

    @property
    def clock_skew(self) -> timedelta | None:
        """How far StackOne's clock was ahead of ours at its last answer; None before the first."""
        return self._calls.clock_skew

    @property
    def waits_for_budget(self) -> float:
        """For how many seconds a call of a job has still to wait for room in the budget; 0 where none does."""
        return self._calls.waits_for_budget

    async def create_connect_session(self, request: OwnedConnectSessionRequest) -> ConnectSession:
        """Mint a connect session (POST /connect_sessions).

        Raises Unprocessable or Conflict where the refusal is about what the caller asked for, and UpstreamRejected
        where the session is for another owner, account, provider, profile or project than it should be: its token must
        not leave.
        """
        sent = request.body()
        try:
            call = Call(
                "create_connect_session",
                "POST",
                "/connect_sessions",
                body=sent,
                owner_id=request.origin_owner_id,
                subject=request.origin_owner_id,
            )
            answer = await self._calls.make(call)
        except Refused as refused:
            raise mint_refusal(refused) from refused
        session = _read(ConnectSession, answer)
        for name, echoed in session.echoes().items():
            if name not in sent:
                continue
            if echoed is None:
                self._metrics.mint_echoes_missing.labels(name).inc()
            elif echoed != sent[name]:
                raise _another_session(name)
        provider = sent.get("provider")
        # Where none was sent the person picks one, and none that StackOne names is another one.
        is_named = provider is not None and session.provider is not None
        if is_named and str(session.provider).lower() != str(provider).lower():
            raise _another_session("provider")
        if session.project_id is not None and self._project_id not in {None, str(session.project_id)}:
            raise _another_session("project_id")
        return session

    async def authenticate_connect_session(self, token: str, *, owner_id: str) -> AuthenticatedSession:
        """Look a session of an owner up by its token (POST /connect_sessions/authenticate).

        Raises Refused, which is an UpstreamRejected, where StackOne does not accept the token.
        """
        call = Call(
            "authenticate_connect_session",
            "POST",
            "/connect_sessions/authenticate",
            body={"token": token},
            owner_id=owner_id,
            subject=owner_id,
        )
        return _read(AuthenticatedSession, await self._calls.make(call))

    async def get_account(
        self, account_id: str, *, priority: Priority = Priority.INTERACTIVE, owner_id: str | None = None
    ) -> Account:
        """Read one account, for an owner who waits for it or for none. Raises AccountGone when there is none."""
        path = f"{self._accounts_path}/{quote(account_id, safe='')}"
        call = Call("get_account", "GET", path, priority=priority, owner_id=owner_id, subject=account_id)
        account = _read(Account, await self._calls.make(call))
        if account.id != account_id:
            message = "StackOne answered with another account than the one asked for"
            raise UpstreamRejected(message)
        if self._is_of_another_project(account):
            raise AnotherProject
        return account

    async def reserve(self, priority: Priority = Priority.INTERACTIVE, *, owner_id: str | None = None) -> None:
        """Take a place in the budget for the next `delete_account`. Raises Unavailable if there is no room for it."""
        await self._calls.reserve(priority, owner_id)

    async def delete_account(
        self, account_id: str, *, priority: Priority = Priority.INTERACTIVE, owner_id: str | None = None
    ) -> None:
        """Delete one account, in a reserved place. Raises AccountGone when there is none.

        Never waits for room and is never tried again by itself: whose the account is has to be read before each try.
        """
        path = f"/accounts/{quote(account_id, safe='')}"
        call = Call(
            "delete_account", "DELETE", path, priority=priority, once=True, owner_id=owner_id, subject=account_id
        )
        await self._calls.make(call)

    async def list_page(
        self, *, page: int, page_size: int, owner_id: str | None = None, priority: Priority = Priority.INTERACTIVE
    ) -> AccountPage:
        """Read one page of all accounts or of an owner's, in either envelope. To go through all of them: `Listing`.

        Rows that cannot be read, or are another project's, are only counted: the others are of use even so.
        """
        query: dict[str, int | str] = {"page": page, "page_size": page_size}
        if owner_id is not None:
            query[_OWNER_FILTERS[self._accounts_path]] = owner_id
        call = Call("list_accounts", "GET", self._accounts_path, query=query, priority=priority)
        answer = await self._calls.make(call)
        rows = answer.get("data") if isinstance(answer, Mapping) else answer
        if not isinstance(rows, list):
            message = "StackOne's listing of accounts is neither a list nor an object with one"
            raise UpstreamRejected(message)
        accounts = []
        for row in rows:
            with suppress(UpstreamRejected):
                account = _read(Account, row)
                if not self._is_of_another_project(account):
                    accounts.append(account)
        return AccountPage(accounts, unreadable=len(rows) - len(accounts))

    def _is_of_another_project(self, account: Account) -> bool:
        return account.project_id is not None and self._project_id not in {None, account.project_id}

    async def list_auth_configs(self) -> Sequence[AuthConfig]:
        """Return every auth config of the project (GET /auth_configs); one that cannot be read is left out."""
        found: dict[str, AuthConfig] = {}
        for page in range(1, _MOST_AUTH_CONFIG_PAGES + 1):
            query: dict[str, int | str] = {"page": page, "page_size": _AUTH_CONFIG_PAGE_SIZE}
            answer = await self._calls.make(Call("list_auth_configs", "GET", "/auth_configs", query=query))
            rows = answer.get("data") if isinstance(answer, Mapping) else answer
            if not isinstance(rows, list):
                message = "StackOne's list of auth configs is neither a list nor an object with one"
                raise UpstreamRejected(message)
            before = len(found)
            for row in rows:
                with suppress(UpstreamRejected):
                    config = _read(AuthConfig, row)
                    found[config.id] = config
            if len(found) == before:
                break
        return list(found.values())


def _another_session(field: str) -> UpstreamRejected:
    logger.error("stackone_minted_another_session", field=field)
    return UpstreamRejected(f"StackOne opened a session with another {field} than the one asked for")


_Model = TypeVar("_Model", Account, AuthConfig, ConnectSession, AuthenticatedSession)


def _read(model: type[_Model], answer: object) -> _Model:
    try:
        return model.model_validate(answer)
    except (ValidationError, ValueError, OverflowError, RecursionError) as error:
        message = f"StackOne's answer is not a readable {model.__name__}"
        raise UpstreamRejected(message) from error
