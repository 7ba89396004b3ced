"""The signature check by itself: what the authenticator checks before it must not be all there is."""

from typing import Any

import pytest

from app.identity.refusal import Refused
from app.identity.tokens.unverified import peek
from app.identity.tokens.verify import Expected, verified_payload
from tests.support.tokens import Issuer


def check(signer: Issuer, token: str, **changes: Any) -> dict[str, Any]:
    wanted = {"algorithms": ["RS256"], "issuer": signer.url, "audiences": [signer.audience], **changes}
    expected = Expected(tuple(wanted["algorithms"]), wanted["issuer"], tuple(wanted["audiences"]))
    return verified_payload(peek(token), expected, keys=[signer.key.private.public_key()])


def test_it_returns_the_claims(issuer: Issuer) -> None:
    assert check(issuer, issuer.token()) == issuer.claims()
    assert check(issuer, issuer.token(), audiences=["a", issuer.audience]) == issuer.claims()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"issuer": "https://other.example"}, "iss is another than its issuer's"),
        ({"audiences": ["other"]}, "aud is none of the issuer's audiences"),
        ({"audiences": []}, "aud is none of the issuer's audiences"),
        ({"algorithms": ["RS512"]}, "alg is not that of the key, or none of RS512"),
    ],
    ids=str,
)
def test_each_setting_counts(changes: dict[str, Any], reason: str, issuer: Issuer) -> None:
    with pytest.raises(Refused) as refusal:
        check(issuer, issuer.token(), **changes)
    assert refusal.value.reason == f"the token's {reason}"


@pytest.mark.parametrize("claim", ["exp", "iss", "aud", "sub"])
def test_each_claim_is_required(claim: str, issuer: Issuer) -> None:
    token = issuer.token(claim) if claim != "iss" else issuer.token(iss="")
    with pytest.raises(Refused):
        check(issuer, token)
