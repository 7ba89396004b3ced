"""The signature of a webhook."""

import base64
import hashlib
import hmac


def sign(raw_body: bytes, secret: str) -> str:
    """Return HMAC-SHA256 over the exact bytes as base64url without padding (Node's `base64url`)."""
    digest = hmac.new(secret.encode(), raw_body, hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
