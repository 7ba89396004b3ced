"""The error of a credential that is not accepted."""

from app.errors import Unauthenticated


class Refused(Unauthenticated):
    """A credential was sent and is not accepted; `reason` goes into our log, so it never holds what was sent."""

    def __init__(self, reason: str) -> None:
        """Keep the reason; the caller gets the one 401 that every cause gets."""
        super().__init__(reason, credential_sent=True)
