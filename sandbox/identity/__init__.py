"""An identity provider with as much of OpenID Connect as a broker needs, and the server of the demo's page."""

from sandbox.identity.application import create_identity_provider
from sandbox.identity.provider import IdentityConfig, IdentityProvider

__all__ = ["IdentityConfig", "IdentityProvider", "create_identity_provider"]
