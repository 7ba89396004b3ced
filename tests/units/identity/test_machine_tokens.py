"""Machine tokens on service routes, and what keeps them apart from users' tokens."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from app.errors import InsufficientScope, Unauthenticated
from app.identity.authenticate import Authenticator, Credentials
from app.identity.caller import CredentialKind, Scope, Service
from app.identity.tokens.machines import MachineIssuer
from app.identity.tokens.unverified import UnverifiedToken, peek
from tests.support.case_names import spelled
from tests.support.tokens import Issuer, IssuerServer, StoppedClock, rsa_key

pytestmark = pytest.mark.anyio

MakeAuthenticator = Callable[..., AbstractAsyncContextManager[Authenticator]]


def bearer(token: str) -> Credentials:
    return Credentials([f"Bearer {token}"], [], None, None, None)


@pytest.fixture
def machines(clock: StoppedClock, server: IssuerServer) -> Issuer:
    issuer = Issuer(clock, "https://machines.example.test", audience="connect-broker-api", key=rsa_key("m-1"))
    server.issuers.append(issuer)
    return issuer


async def serve(make_authenticator: MakeAuthenticator, machines: Issuer, token: str, **changes: Any) -> Service:
    async with make_authenticator(machine_issuers=[machines.machine_settings(**changes)]) as authenticator:
        return await authenticator.service(bearer(token))


async def test_a_machine_token_is_a_service(make_authenticator: MakeAuthenticator, machines: Issuer) -> None:
    token = machines.token("email", sub="batch@clients", scope="accounts:read sync:write", org_id=None)

    service = await serve(make_authenticator, machines, token)

    assert (service.credential_id, service.name, service.kind) == (
        "batch@clients",
        "batch@clients",
        CredentialKind.MACHINE_TOKEN,
    )
    assert service.scopes == {Scope.ACCOUNTS_READ, Scope.SYNC_WRITE}
    assert service.owner_ids is None
    assert service.actor == "service:batch@clients"


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        ("accounts:read", {Scope.ACCOUNTS_READ}),
        ("openid accounts:read  events:read other:thing", {Scope.ACCOUNTS_READ, Scope.EVENTS_READ}),
        (["accounts:read", "events:read"], {Scope.ACCOUNTS_READ, Scope.EVENTS_READ}),
        (["accounts:read", 7, None, ["sync:write"], {"a": 1}], {Scope.ACCOUNTS_READ}),
        ("", set()),
        ([], set()),
        (None, set()),
        (7, set()),
        ({"accounts:read": True}, set()),
        ("accounts:*", set()),
        ("ACCOUNTS:READ", set()),
        ("accounts:read\nsync:write", set()),
        ("accounts:read,sync:write", set()),
    ],
    ids=spelled,
)
async def test_scopes(
    scope: Any, expected: set[Scope], make_authenticator: MakeAuthenticator, machines: Issuer
) -> None:
    service = await serve(make_authenticator, machines, machines.token(scope=scope))

    assert service.scopes == expected


async def test_scopes_under_another_name(make_authenticator: MakeAuthenticator, machines: Issuer) -> None:
    service = await serve(
        make_authenticator, machines, machines.token(permissions=["sync:write"]), scope_claim="permissions"
    )

    assert service.scopes == {Scope.SYNC_WRITE}


@pytest.mark.parametrize(
    ("owners", "expected"),
    [(["acme", "globex"], {"acme", "globex"}), ("acme", {"acme"}), ("acme globex", {"acme globex"}), ([], set())],
    ids=spelled,
)
async def test_owners(owners: Any, expected: set[str], make_authenticator: MakeAuthenticator, machines: Issuer) -> None:
    service = await serve(
        make_authenticator, machines, machines.token(owners=owners, scope="accounts:read"), owners_claim="owners"
    )

    assert service.owner_ids == frozenset(expected)
    with pytest.raises(InsufficientScope):
        service.require(Scope.ACCOUNTS_READ, "initech")


@pytest.mark.parametrize(
    "owners", [None, [7], ["acme", None], {"acme": True}, True, "", ["acme\x00"], ["a" * 256]], ids=spelled
)
async def test_unclear_owners_never_mean_all(
    owners: Any, make_authenticator: MakeAuthenticator, machines: Issuer
) -> None:
    with pytest.raises(Unauthenticated) as refusal:
        await serve(make_authenticator, machines, machines.token(owners=owners), owners_claim="owners")
    assert refusal.value.reason == (
        "the token has no owners, which says the owners that the machine is limited to"
        if owners is None
        else "the claim owners for the machine's owners is not a list of texts"
    )


async def test_a_machine_is_called_by_the_configured_claim_or_else_by_its_subject(
    make_authenticator: MakeAuthenticator, machines: Issuer
) -> None:
    token = machines.token(sub="client-7", client_name="Billing", email=None)
    for path, name in (("client_name", "Billing"), ("absent", "client-7"), (None, "client-7")):
        claims = {"owner_id": "unused", "username": path}
        assert (await serve(make_authenticator, machines, token, claims=claims)).name == name


async def test_a_machines_subject_is_decent_text_and_its_name_may_be_ugly(
    make_authenticator: MakeAuthenticator, machines: Issuer
) -> None:
    paths = {"owner_id": "unused", "username": "client_name"}
    with pytest.raises(Unauthenticated) as refusal:
        await serve(make_authenticator, machines, machines.token(sub="s" * 256), claims=paths)
    assert refusal.value.reason == "the claim sub for the subject is not text of 1 to 255 printable characters"
    service = await serve(make_authenticator, machines, machines.token(client_name=["Billing"]), claims=paths)
    assert service.name == machines.claims()["sub"]


class Believing:
    """A verifier that lets claims through which no real one would."""

    async def verify(self, token: UnverifiedToken) -> dict[str, Any]:
        """Return claims without a subject."""
        del token
        return {"exp": 1_772_366_400 + 60}

    def trusted(self) -> object:
        """Return what never changes."""
        return self


async def test_whatever_the_verifier_lets_through_a_machine_has_a_subject(machines: Issuer) -> None:
    issuer = MachineIssuer(machines.machine_settings(), Believing())
    with pytest.raises(Unauthenticated) as refusal:
        await issuer.verified(peek(machines.token()), now=1_772_366_400)
    assert refusal.value.reason == "the token names no subject"


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": "connect-broker"},
        {"exp": 0},
        {"sub": ""},
        {"sub": None},
        {"nonce": "n"},
        {"iss": "https://login.example.test"},
    ],
    ids=spelled,
)
async def test_a_machine_token_is_checked_like_any_other(
    claims: dict[str, Any], make_authenticator: MakeAuthenticator, machines: Issuer
) -> None:
    with pytest.raises(Unauthenticated):
        await serve(make_authenticator, machines, machines.token(scope="sync:write", **claims))


async def test_neither_kind_of_route_accepts_the_tokens_of_the_other(
    make_authenticator: MakeAuthenticator, issuer: Issuer, machines: Issuer
) -> None:
    async with make_authenticator(machine_issuers=[machines.machine_settings()]) as authenticator:
        with pytest.raises(Unauthenticated):
            await authenticator.service(bearer(issuer.token(scope="sync:write")))
        with pytest.raises(Unauthenticated):
            await authenticator.end_user(bearer(machines.token()))


async def test_without_machine_issuers_no_jwt_opens_the_service_channel(
    authenticator: Authenticator, issuer: Issuer
) -> None:
    with pytest.raises(Unauthenticated) as refusal:
        await authenticator.service(bearer(issuer.token(scope="sync:write")))
    assert refusal.value.reason == "the token's issuer (iss) is not trusted on these routes"


async def test_one_issuer_with_two_audiences(
    make_authenticator: MakeAuthenticator, issuer: Issuer, server: IssuerServer
) -> None:
    machine_settings = issuer.machine_settings(audiences=["machines"])
    async with make_authenticator(machine_issuers=[machine_settings]) as authenticator:
        user, machine = issuer.token(scope="sync:write"), issuer.token(aud="machines", scope="sync:write")
        assert (await authenticator.end_user(bearer(user))).owner_id == "acme"
        assert (await authenticator.service(bearer(machine))).scopes == {Scope.SYNC_WRITE}
        with pytest.raises(Unauthenticated):
            await authenticator.service(bearer(user))
        with pytest.raises(Unauthenticated):
            await authenticator.end_user(bearer(machine))
    assert server.key_fetches == 1  # they share the keys and the cooldown


async def test_one_issuer_with_one_audience_and_a_mark(make_authenticator: MakeAuthenticator, issuer: Issuer) -> None:
    """Auth0 marks machine tokens with gty; even one that carries an owner is no user."""
    machine_settings = issuer.machine_settings(required_claims={"gty": "client-credentials"})
    async with make_authenticator(machine_issuers=[machine_settings]) as authenticator:
        user, machine = issuer.token(), issuer.token(gty="client-credentials", scope="sync:write")
        assert (await authenticator.end_user(bearer(user))).owner_id == "acme"
        assert (await authenticator.service(bearer(machine))).scopes == {Scope.SYNC_WRITE}
        with pytest.raises(Unauthenticated):
            await authenticator.service(bearer(user))
        with pytest.raises(Unauthenticated) as refusal:
            await authenticator.end_user(bearer(machine))
        assert refusal.value.reason == "a machine token on a browser route, by its gty"


async def test_a_mark_means_nothing_where_audiences_tell_them_apart(
    make_authenticator: MakeAuthenticator, issuer: Issuer
) -> None:
    """A machine's required claim may be one that users have too, as long as the audience is the wall."""
    machine_settings = issuer.machine_settings(audiences=["machines"], required_claims={"tenant": "eu"})
    async with make_authenticator(machine_issuers=[machine_settings]) as authenticator:
        assert (await authenticator.end_user(bearer(issuer.token(tenant="eu")))).owner_id == "acme"
