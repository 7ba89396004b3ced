"""Codes of invitations: made from the id with a secret, so that they are stored nowhere and can be shown again.

A code proves that the broker made the invitation, and nothing else: who may open it is decided by who has signed in.
"""

import base64
import hmac
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from pydantic import SecretStr

from app.settings import InvitationSettings

_CODE_BYTES: Final = 16
_CODE_LENGTH: Final = 22
# No other id has a dot.
_REPAIR: Final = "inv_repair."
_PURPOSE: Final = b"connect-broker invitation\0"
LONGEST: Final = 600
"""Characters of the longest id with its code."""


def with_code(settings: InvitationSettings, invitation_id: str) -> str:
    """Return an invitation's id with its code behind it, as it stands in a link. `settings` have a secret."""
    return invitation_id + _code(settings.secrets[0], invitation_id)


def link(settings: InvitationSettings, invitation_id: str) -> str | None:
    """Return the link of an invitation; None where there is no page for it.

    The code is in the fragment, which browsers send to no server.
    """
    return f"{settings.page_url}#{with_code(settings, invitation_id)}" if settings.page_url else None


def opened_by(secrets: Sequence[SecretStr], text: str) -> str | None:
    """Return the id of the invitation that an id with a code opens, or None. Compares in constant time."""
    invitation_id, code = text[:-_CODE_LENGTH], text[-_CODE_LENGTH:]
    fits = [hmac.compare_digest(_code(secret, invitation_id).encode(), code.encode()) for secret in secrets]
    return invitation_id if any(fits) else None


def _code(secret: SecretStr, invitation_id: str) -> str:
    digest = hmac.digest(secret.get_secret_value().encode(), _PURPOSE + invitation_id.encode(), "sha256")
    return base64.urlsafe_b64encode(digest[:_CODE_BYTES]).rstrip(b"=").decode()


def repair_id(account_id: str, since: datetime) -> str:
    """Return the id of the invitation to repair an account that has been broken since a moment.

    It says all that there is to know: such an invitation is in no table, and ends when the account works again.
    """
    named = base64.urlsafe_b64encode(account_id.encode()).rstrip(b"=").decode()
    return f"{_REPAIR}{named}.{int(since.timestamp() * 1000)}"


def read_repair_id(invitation_id: str) -> tuple[str, int] | None:
    """Return the account of an invitation to repair one, and since when it is broken, in milliseconds since 1970."""
    named, _, since = invitation_id.removeprefix(_REPAIR).partition(".")
    if not invitation_id.startswith(_REPAIR) or not since.isdecimal():
        return None
    return base64.urlsafe_b64decode(named + "=" * (-len(named) % 4)).decode(), int(since)
