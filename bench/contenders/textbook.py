"""What a careful team writes from the documentation: FastAPI, PyJWT with its key client, httpx2, the ORM and asyncpg.

A mint writes one ledger row before StackOne is asked, and does not complete it afterwards. No policy, no limits, no
breaker, no metrics.
"""

import base64
import hashlib
import hmac
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from uuid import uuid4

import httpx2
import jwt
from fastapi import Depends, FastAPI, HTTPException, Request
from pydantic import BaseModel, ConfigDict
from sqlalchemy import DateTime, LargeBinary, String, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

ISSUER = os.environ["BENCH_ISSUER"]
SECRET = os.environ["BENCH_WEBHOOK_SECRET"].encode()
engine = create_async_engine(os.environ["BENCH_DATABASE_URL"], pool_size=20)
sessions = async_sessionmaker(engine, expire_on_commit=False)
keys = jwt.PyJWKClient(f"{os.environ['BENCH_STACKONE_URL']}/keys", cache_keys=True)


class Base(DeclarativeBase):
    """The tables."""


class Account(Base):
    """A linked account."""

    __tablename__ = "bench_accounts"
    account_id: Mapped[str] = mapped_column(String(255), primary_key=True)
    owner_id: Mapped[str] = mapped_column(String(255), index=True)
    provider: Mapped[str]
    status: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))


class Session(Base):
    """A connect session."""

    __tablename__ = "bench_sessions"
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    owner_id: Mapped[str] = mapped_column(String(255))
    provider: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    expires_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))


class Event(Base):
    """A webhook delivery."""

    __tablename__ = "bench_events"
    digest: Mapped[bytes] = mapped_column(LargeBinary(32), primary_key=True)
    account_id: Mapped[str]


class SessionRequest(BaseModel):
    """What may be asked for."""

    provider: str | None = None


class SessionToken(BaseModel):
    """What is answered."""

    id: str
    token: str
    expires_at: datetime
    provider: str | None


class AccountOut(BaseModel):
    """An account."""

    model_config = ConfigDict(from_attributes=True)
    account_id: str
    owner_id: str
    provider: str
    status: str
    created_at: datetime


class Page(BaseModel):
    """Accounts."""

    data: list[AccountOut]


class Owner(BaseModel):
    """Who asks."""

    id: str
    name: str


def owner_of(request: Request) -> Owner:
    """Verify the caller's token."""
    token = request.headers.get("authorization", "").removeprefix("Bearer ")
    try:
        key = keys.get_signing_key_from_jwt(token)
        claims = jwt.decode(token, key, algorithms=["RS256"], audience="connect-broker", issuer=ISSUER)
    except jwt.PyJWTError as error:
        raise HTTPException(401) from error
    return Owner(id=claims["org_id"], name=claims["org_name"])


async def session() -> AsyncIterator[AsyncSession]:
    """Open a session of the ORM."""
    async with sessions() as opened:
        yield opened


OwnerDep = Annotated[Owner, Depends(owner_of)]
SessionDep = Annotated[AsyncSession, Depends(session)]


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with httpx2.AsyncClient(
        base_url=os.environ["BENCH_STACKONE_URL"],
        headers={"authorization": "Basic a2V5Og=="},
        limits=httpx2.Limits(max_connections=1000, max_keepalive_connections=1000),
        timeout=30,
    ) as client:
        app.state.stackone = client
        yield


app = FastAPI(lifespan=_lifespan)


@app.post("/v1/connect-sessions", status_code=201)
async def mint(body: SessionRequest, owner: OwnerDep, db: SessionDep, request: Request) -> SessionToken:
    """Mint."""
    now = datetime.now(UTC)
    row = Session(
        id=f"cs_{uuid4().hex}",
        owner_id=owner.id,
        provider=body.provider,
        created_at=now,
        expires_at=now + timedelta(minutes=30),
    )
    db.add(row)
    await db.commit()
    wanted = {"origin_owner_id": owner.id, "origin_owner_name": owner.name, "provider": body.provider}
    answer = await request.app.state.stackone.post("/connect_sessions", json=wanted)
    answer.raise_for_status()
    return SessionToken(id=row.id, token=answer.json()["token"], expires_at=row.expires_at, provider=row.provider)


@app.get("/v1/linked-accounts")
async def listing(owner: OwnerDep, db: SessionDep) -> Page:
    """List."""
    found = await db.scalars(select(Account).where(Account.owner_id == owner.id).order_by(Account.account_id).limit(51))
    return Page(data=[AccountOut.model_validate(account) for account in found])


@app.get("/v1/linked-accounts/{account_id}")
async def get(account_id: str, owner: OwnerDep, db: SessionDep) -> AccountOut:
    """Get."""
    account = await db.get(Account, account_id)
    if account is None or account.owner_id != owner.id:
        raise HTTPException(404)
    return AccountOut.model_validate(account)


@app.post("/v1/linked-accounts/{account_id}/confirm")
async def confirm(account_id: str, owner: OwnerDep, db: SessionDep, request: Request) -> AccountOut:
    """Confirm."""
    answer = await request.app.state.stackone.get(f"/accounts/{account_id}")
    answer.raise_for_status()
    found = answer.json()
    if found["origin_owner_id"] != owner.id:
        raise HTTPException(404)
    account = await db.merge(
        Account(
            account_id=account_id,
            owner_id=owner.id,
            provider=found["provider"],
            status=found["status"],
            created_at=datetime.fromisoformat(found["created_at"]),
        )
    )
    await db.commit()
    return AccountOut.model_validate(account)


@app.post("/v1/webhooks/stackone")
async def webhook(request: Request, db: SessionDep) -> dict[str, Any]:
    """Write an event down once."""
    body = await request.body()
    digest = base64.urlsafe_b64encode(hmac.digest(SECRET, body, "sha256")).rstrip(b"=").decode()
    if not hmac.compare_digest(digest, request.headers.get("x-stackone-signature", "")):
        raise HTTPException(401)
    row = {"digest": hashlib.sha256(body).digest(), "account_id": json.loads(body)["account_id"]}
    await db.execute(insert(Event).values(row).on_conflict_do_nothing())
    await db.commit()
    return {"outcome": "accepted"}
