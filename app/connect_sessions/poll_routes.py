"""Polling a session over HTTP."""

from typing import Annotated

from fastapi import APIRouter
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr

from app.connect_sessions.poll import poll_session
from app.connect_sessions.schemas import SessionStatus
from app.http.callers import EndUserDep, RuntimeDep
from app.http.problems import documented
from app.inputs import ShortText, storable

browser = APIRouter(prefix="/v1/connect-sessions", tags=["browser"])


def _storable_secret(secret: SecretStr) -> SecretStr:
    storable(secret.get_secret_value())
    return secret


class SessionPoll(BaseModel):
    """The session's own token, as minting returned it."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    token: Annotated[SecretStr, Field(min_length=1, max_length=4096), AfterValidator(_storable_secret)]


class PolledSession(SessionStatus):
    """How a session stands, with StackOne's word on its OAuth attempt."""

    attempt: str | None = Field(
        description="pending, authenticated, error, cancelled or expired; null where there was no OAuth attempt."
    )


@browser.post(
    "/{session_id}/poll",
    summary="Have StackOne asked how a session of yours stands; the token is used for this and kept nowhere",
    responses=documented(401, 404, 413, 422, 429, 502, 503),
)
async def poll_own_session(  # noqa: D103
    session_id: ShortText, body: SessionPoll, user: EndUserDep, runtime: RuntimeDep
) -> PolledSession:
    session, attempt = await poll_session(
        user,
        session_id,
        body.token.get_secret_value(),
        database=runtime.database,
        stackone=runtime.stackone,
        clock=runtime.clock,
        metrics=runtime.metrics,
        project_id=runtime.settings.stackone.project_id,
    )
    return PolledSession(**SessionStatus.of(session).model_dump(), attempt=attempt)
