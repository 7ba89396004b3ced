"""HS256 tokens of a home-made login, and how such an issuer must not be talked into something else."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest

from app.errors import SettingsError, Unauthenticated
from app.identity.authenticate import Authenticator, Credentials
from app.identity.tokens.shared_secret import SharedSecretVerifier
from app.identity.tokens.unverified import peek
from app.identity.tokens.verify import Expected
from tests.support.tokens import Issuer, IssuerServer, StoppedClock, compact, hmac_signer, rsa_key

pytestmark = pytest.mark.anyio

MakeAuthenticator = Callable[..., AbstractAsyncContextManager[Authenticator]]
SECRET = "thirty-two bytes of shared secret"


@pytest.fixture
def home_made(clock: StoppedClock) -> Issuer:
    return Issuer(clock, "acme-app", secret=SECRET)


async def enter(authenticator: Authenticator, token: str) -> str:
    return (await authenticator.end_user(Credentials([f"Bearer {token}"], [], None, None, None))).owner_id


async def test_an_honest_token_needs_no_request(
    make_authenticator: MakeAuthenticator, home_made: Issuer, server: IssuerServer
) -> None:
    async with make_authenticator(issuers=[home_made.settings()]) as authenticator:
        assert await enter(authenticator, home_made.token()) == "acme"
        assert await enter(authenticator, home_made.token_with_header("kid", "typ")) == "acme"
        assert await enter(authenticator, home_made.token_with_header(kid="anything")) == "acme"
        assert authenticator.issuers_status() == []
    assert server.requests == []


FORGERIES: dict[str, Callable[[Issuer], str]] = {
    "other-secret": lambda i: compact(i.header(), i.claims(), hmac_signer(b"another secret of 32 bytes length")),
    "empty-secret": lambda i: compact(i.header(), i.claims(), hmac_signer(b"")),
    "secret-with-newline": lambda i: compact(i.header(), i.claims(), hmac_signer(SECRET.encode() + b"\n")),
    "secret-in-base64": lambda i: compact(i.header(), i.claims(), hmac_signer(b"dGhpcnR5LXR3byBieXRlcw==")),
    "hs512-not-configured": lambda i: compact(
        i.header(alg="HS512"), i.claims(), hmac_signer(SECRET.encode(), "sha512")
    ),
    "hs512-digest-as-hs256": lambda i: compact(i.header(), i.claims(), hmac_signer(SECRET.encode(), "sha512")),
    "none": lambda i: compact(i.header(alg="none"), i.claims(), i.sign),
    "rs256": lambda i: compact(i.header(alg="RS256"), i.claims(), rsa_key("attacker").sign),
    "rs256-with-jwk": lambda i: compact(
        i.header(alg="RS256", jwk=rsa_key("attacker").jwk()), i.claims(), rsa_key("attacker").sign
    ),
    "truncated-signature": lambda i: i.token()[:-2],
    "half-signature": lambda i: i.token()[:-22],
    "wrong-audience": lambda i: i.token(aud="other"),
    "expired": lambda i: i.token(exp=i.now - 31),
    "no-exp": lambda i: i.token("exp"),
}


@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES.keys())
async def test_a_forged_token_is_refused(
    forge: Callable[[Issuer], str], make_authenticator: MakeAuthenticator, home_made: Issuer
) -> None:
    async with make_authenticator(issuers=[home_made.settings()]) as authenticator:
        with pytest.raises(Unauthenticated):
            await enter(authenticator, forge(home_made))


async def test_secret_and_public_keys_of_two_issuers_do_not_mix(
    make_authenticator: MakeAuthenticator, home_made: Issuer, issuer: Issuer
) -> None:
    async with make_authenticator(issuers=[home_made.settings(), issuer.settings()]) as authenticator:
        assert await enter(authenticator, home_made.token()) == "acme"
        assert await enter(authenticator, issuer.token()) == "acme"
        for forged in (
            compact(home_made.header(), issuer.claims(), home_made.sign),
            compact(issuer.header(), home_made.claims(), issuer.sign),
            compact(issuer.header(alg="HS256"), issuer.claims(), hmac_signer(issuer.key.public_pem())),
        ):
            with pytest.raises(Unauthenticated):
                await enter(authenticator, forged)


@pytest.mark.parametrize(
    ("secret", "algorithms", "mistake"),
    [
        (SECRET, ["HS256", "HS512"], "the secret must have at least 64 bytes for HS512"),
        (SECRET, ["HS384"], "the secret must have at least 48 bytes for HS384"),
        (rsa_key().public_pem().decode(), ["HS256"], "the secret looks like a public key or certificate"),
    ],
    ids=["short-for-hs512", "short-for-hs384", "public-key"],
)
async def test_an_unfit_secret_is_a_mistake_at_start(
    secret: str,
    algorithms: list[str],
    mistake: str,
    make_authenticator: MakeAuthenticator,
    home_made: Issuer,
    issuer: Issuer,
) -> None:
    broken = home_made.settings(secret=secret, algorithms=algorithms)

    with pytest.raises(SettingsError) as refusal:
        async with make_authenticator(issuers=[issuer.settings(), broken]):
            pass

    (told,) = refusal.value.mistakes
    assert told.startswith(f"BROKER_IDENTITY__ISSUERS[1]: {mistake}")
    assert secret not in told


async def test_every_unfit_issuer_is_told_of_at_once_users_and_machines_alike(
    make_authenticator: MakeAuthenticator, home_made: Issuer, issuer: Issuer
) -> None:
    unfit = {"secret": SECRET, "algorithms": ["HS512"]}
    users = [home_made.settings(**unfit, issuer=name) for name in ("one", "two")]
    machines = [issuer.machine_settings(), *(home_made.machine_settings(**unfit, issuer=name) for name in ("a", "b"))]

    with pytest.raises(SettingsError) as refusal:
        async with make_authenticator(issuers=users, machine_issuers=machines):
            pass

    assert [mistake.partition(":")[0] for mistake in refusal.value.mistakes] == [
        "BROKER_IDENTITY__ISSUERS[0]",
        "BROKER_IDENTITY__ISSUERS[1]",
        "BROKER_IDENTITY__MACHINE_ISSUERS[1]",
        "BROKER_IDENTITY__MACHINE_ISSUERS[2]",
    ]


@pytest.mark.parametrize(("algorithm", "size"), [("HS256", 32), ("HS384", 48), ("HS512", 64)])
def test_a_secret_of_just_the_size_of_the_hash_will_do(algorithm: str, size: int) -> None:
    SharedSecretVerifier([b"s" * size], Expected((algorithm,), "acme-app", ("connect-broker",)))
    with pytest.raises(ValueError, match=f"at least {size} bytes for {algorithm}"):
        SharedSecretVerifier([b"s" * (size - 1)], Expected((algorithm,), "acme-app", ("a",)))


async def test_the_issuer_is_checked_once_more_behind_the_signature(home_made: Issuer) -> None:
    """The verifier was chosen by `iss`; one that is asked about another issuer's token still does not believe it."""
    ours, theirs = (
        SharedSecretVerifier([SECRET.encode()], Expected(("HS256",), issuer, ("connect-broker",)))
        for issuer in ("acme-app", "another-app")
    )
    token = peek(home_made.token())
    assert (await ours.verify(token))["iss"] == "acme-app"
    with pytest.raises(Unauthenticated) as refusal:
        await theirs.verify(token)
    assert refusal.value.reason == "the token's iss is another than its issuer's"


async def test_while_a_secret_is_rotated_both_are_good(
    make_authenticator: MakeAuthenticator, clock: StoppedClock
) -> None:
    next_secret = "the next secret of 32 bytes or more"
    old, new = Issuer(clock, "acme-app", secret=SECRET), Issuer(clock, "acme-app", secret=next_secret)
    async with make_authenticator(issuers=[old.settings(secrets=[next_secret])]) as authenticator:
        assert await enter(authenticator, old.token()) == await enter(authenticator, new.token()) == "acme"
        with pytest.raises(Unauthenticated) as refusal:
            await enter(authenticator, old.token(aud="other"))
        assert refusal.value.reason == "the token's aud is none of the issuer's audiences"
    async with make_authenticator(issuers=[old.settings(secret=None, secrets=[next_secret])]) as authenticator:
        assert await enter(authenticator, new.token()) == "acme"
        with pytest.raises(Unauthenticated):
            await enter(authenticator, old.token())
