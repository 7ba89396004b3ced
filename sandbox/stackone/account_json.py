"""How a linked account is written: v1, v2, its meta, and the payload of an event about it."""

from sandbox.bodies import JsonObject
from sandbox.stackone.accounts import Account, AccountEvent
from sandbox.stackone.connectors import connector_for

_V2_NAMES = {"provider": "connector", "origin_owner_id": "owner_id", "origin_owner_name": "owner_name"}


def account_v1(account: Account) -> JsonObject:
    """Write the LinkedAccount of the documented v1 schema."""
    return account.model_dump(exclude={"secrets", "metadata", "connector_profile_id"})


def account_v2(account: Account) -> JsonObject:
    """Write the account under the names of v2; beyond the renames its schema is inferred."""
    renamed = {_V2_NAMES.get(name, name): value for name, value in account_v1(account).items()}
    return renamed | {"connector_profile_id": account.connector_profile_id}


def account_meta(account: Account) -> dict[str, object]:
    """Write what GET /accounts/{id}/meta says."""
    connector = connector_for(account.provider)
    return {
        "provider": account.provider,
        "category": connector.category if connector else "stackone",
        "models": {model: {"list": True} for model in connector.models} if connector else {},
    }


def event_payload(event: AccountEvent, account: Account, project_id: str, *, with_owner: bool) -> dict[str, object]:
    """Write the flat payload of an account event, all but `sent_at`."""
    payload: dict[str, object] = {
        "project_id": project_id,
        "account_id": account.id,
        "event": event,
        "event_date": account.updated_at,
        "record_type": "account",
        # Documented as "string or number": a numeric id beyond 64 bits is where a careless reader loses digits.
        "record_id": int(account.id) if account.id.isascii() and account.id.isdigit() else account.id,
        "provider": account.provider,
    }
    if with_owner:
        payload |= account.model_dump(
            include={"origin_owner_id", "origin_owner_name", "origin_username"}, exclude_none=True
        )
    if account.setup_information:
        payload["setup_information"] = dict(account.setup_information)
    return payload
