"""The signature check by itself: what the authenticator checks before it must not be all there is."""

from typing import Any

import pytest

from app.identity.refusal import Refused
from app.identity.tokens.unverified import peek
from app.identity.tokens.verify import verified_payload
from tests.support.tokens import Issuer


def check(signer: Issuer, token: str, **changes: Any) -> dict[str, Any]:
    wanted: dict[str, Any] = {
        "keys": [signer.key.private.public_key()],
        "algorithms": ["RS256"],
        "issuer": signer.url,
        "audiences": [signer.audience],
        **changes,
    }
    return verified_payload(peek(token), **wanted)


def test_it_returns_the_claims(issuer: Issuer) -> None:
    assert check(issuer, issuer.token()) == issuer.claims()
    assert check(issuer, issuer.token(), audiences=["a", issuer.audience]) == issuer.claims()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"issuer": "https://other.example"}, "InvalidIssuerError"),
        ({"audiences": ["other"]}, "InvalidAudienceError"),
        ({"audiences": []}, "InvalidAudienceError"),
        ({"algorithms": ["RS512"]}, "InvalidAlgorithmError"),
    ],
    ids=str,
)
def test_each_setting_counts(changes: dict[str, Any], reason: str, issuer: Issuer) -> None:
    with pytest.raises(Refused) as refusal:
        check(issuer, issuer.token(), **changes)
    assert refusal.value.reason == f"the token fails its check: {reason}"


@pytest.mark.parametrize("claim", ["exp", "iss", "aud", "sub"])
def test_each_claim_is_required(claim: str, issuer: Issuer) -> None:
    token = issuer.token(claim) if claim != "iss" else issuer.token(iss="")
    with pytest.raises(Refused):
        check(issuer, token)
