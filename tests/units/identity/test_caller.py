"""What a verified caller may do."""

import pytest

from app.errors import InsufficientScope
from app.identity.caller import CredentialKind, EndUser, Scope, Service


def service(*scopes: Scope, owners: set[str] | None = None) -> Service:
    owner_ids = None if owners is None else frozenset(owners)
    return Service("abc", "billing", frozenset(scopes), owner_ids, CredentialKind.KEY)


def test_actors_name_the_kind_of_caller() -> None:
    assert EndUser("https://idp", "u-1", "acme", "Acme", None, {}).actor == "user:u-1@https://idp"
    assert service().actor == "service:abc"


def test_a_scope_is_exactly_itself() -> None:
    service(Scope.ACCOUNTS_READ).require(Scope.ACCOUNTS_READ)
    for scope in set(Scope) - {Scope.ACCOUNTS_READ}:
        with pytest.raises(InsufficientScope) as refusal:
            service(Scope.ACCOUNTS_READ).require(scope)
        assert refusal.value.scope == scope.value


def test_no_scope_allows_nothing() -> None:
    for scope in Scope:
        with pytest.raises(InsufficientScope):
            service().require(scope)


def test_owners_limit_a_service() -> None:
    limited = service(Scope.ACCOUNTS_READ, owners={"acme"})

    limited.require(Scope.ACCOUNTS_READ)
    limited.require(Scope.ACCOUNTS_READ, "acme")
    service(Scope.ACCOUNTS_READ).require(Scope.ACCOUNTS_READ, "anybody")
    for owner_id in ("globex", "", "ACME", "acme "):
        with pytest.raises(InsufficientScope):
            limited.require(Scope.ACCOUNTS_READ, owner_id)
    with pytest.raises(InsufficientScope):
        service(Scope.ACCOUNTS_READ, owners=set()).require(Scope.ACCOUNTS_READ, "acme")


def test_the_refusal_of_an_owner_names_no_owner() -> None:
    with pytest.raises(InsufficientScope) as refusal:
        service(Scope.ACCOUNTS_READ, owners={"acme"}).require(Scope.ACCOUNTS_READ, "globex")

    assert refusal.value.scope == Scope.ACCOUNTS_READ.value
    assert refusal.value.detail == "this credential is limited to certain owners, and this is not one of them"


def test_two_issuers_users_are_two_people_and_fit_their_column() -> None:
    users = [EndUser(issuer, "7", "acme", "Acme", None, {}) for issuer in ("https://a", "https://b")]
    assert {user.actor for user in users} == {"user:7@https://a", "user:7@https://b"}
    long = [EndUser(f"https://idp.example/{'x' * 300}{n}", "s" * 255, "acme", "Acme", None, {}) for n in (1, 2)]
    assert len({user.actor for user in long}) == 2
    assert all(len(user.actor) <= 300 for user in long)
