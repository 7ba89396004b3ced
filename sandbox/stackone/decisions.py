"""What StackOne does not document: the sandbox's answer to each question, and the other one to try instead."""

from typing import Literal

from pydantic import Field

from sandbox.bodies import Body, JsonObject

Choice = Literal["refuse", "accept"]


class Decisions(Body):
    """The answers; what the switch leaves out has its default."""

    unknown_provider: Choice = Field(default="refuse", description="a session for an unknown or disabled provider")
    unknown_profile: Choice = Field(
        default="refuse", description="a session for a profile that is unknown, disabled or another provider's"
    )
    refusal_status: Literal[400, 404, 409, 412, 422] = Field(default=400, description="how those two are refused")
    basic_without_colon: Choice = Field(default="refuse", description="Basic credentials that are the key alone")
    organization_id: Literal["number", "string"] = Field(default="number", description="in sessions")


class Lies(Body):
    """What the emulator says against its own state until told otherwise; what the switch leaves out is true again.

    A field of null is left out of the answer.
    """

    session: JsonObject = Field(default_factory=dict, description="fields of both answers about a session")
    account: JsonObject = Field(default_factory=dict, description="fields of GET /accounts/{id}, v1 and v2")
    listed: JsonObject = Field(default_factory=dict, description="fields of every row of GET /accounts, v1 and v2")
    keep_deleted: bool = Field(default=False, description="DELETE is acknowledged, and the account stays")


def altered(answer: JsonObject, lie: JsonObject) -> JsonObject:
    """Return an answer with the fields of a lie in the place of the true ones."""
    told = {**answer, **lie}
    return {name: value for name, value in told.items() if value is not None or name not in lie}
