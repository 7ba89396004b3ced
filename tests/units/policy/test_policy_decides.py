"""Which rule decides, and what it grants."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.policy.file import parse_policy
from app.policy.rules import Channel, Decision, Policy, Request, Rule, consider, decide
from app.stackone.models import Category

POLICY = parse_policy("""
[groups]
pilots = ["org_pilot", "org_beta_*"]

[[rule]]
name = "suspended"
claims = { "org.suspended" = true }
deny = true

[[rule]]
name = "links by mail"
groups = ["pilots"]
channel = "auth_link"
providers = ["bamboohr"]
auth_links = true
session_lifetime = 604800

[[rule]]
name = "pilots"
groups = ["pilots"]
owners = ["org_friend"]
providers = ["bamboohr", "sap_*"]
connector_profiles = ["pilot-*"]
multiple = true
max_accounts_per_provider = 2

[[rule]]
name = "gold"
channel = ["browser", "service"]
claims = { plan = ["gold", "platinum"], seats = 7 }
providers = ["*"]

[[rule]]
name = "trial"
owners = ["org_trial_*"]
categories = ["hris", "ats"]
session_lifetime = 300
""")


def ask(owner_id: str = "org_pilot", **values: Any) -> Decision:
    return decide(POLICY, Request(owner_id=owner_id, **{"channel": Channel.BROWSER, "expires_in": 1800, **values}))


def test_without_a_file_everything_is_allowed_as_asked() -> None:
    request = Request("anyone", Channel.AUTH_LINK, 99, provider="x", multiple=True, categories=(Category.HRIS,))
    decision = decide(Policy(), request)
    assert (decision.allowed, decision.rule) == (True, None)
    assert decision.reason == "there is no policy file, so everything is allowed"
    assert decision.grant is not None
    assert (decision.grant.categories, decision.grant.multiple, decision.grant.expires_in) == (
        (Category.HRIS,),
        True,
        99,
    )
    assert decision.grant.max_accounts_per_provider is None


def test_whoever_no_rule_matches_may_open_nothing() -> None:
    decision = ask("org_nobody", provider="bamboohr")
    assert decision == Decision(False, None, "no rule of the policy matches this owner, channel and claims")


@pytest.mark.parametrize(
    ("owner_id", "values", "rule"),
    [
        ("org_pilot", {"provider": "bamboohr"}, "pilots"),
        ("org_beta_7", {"provider": "sap_successfactors"}, "pilots"),
        ("org_friend", {"provider": "bamboohr"}, "pilots"),
        ("org_x", {"provider": "anything", "claims": {"plan": "gold", "seats": 7}}, "gold"),
        ("org_x", {"claims": {"plan": ["silver", "platinum"], "seats": "7"}}, "gold"),
        ("org_trial_1", {}, "trial"),
        ("org_trial_1", {"categories": (Category.ATS,)}, "trial"),
        ("org_trial_1", {"categories": (Category.ATS, Category.HRIS)}, "trial"),
        ("org_pilot", {"provider": "bamboohr", "channel": Channel.AUTH_LINK}, "links by mail"),
    ],
)
def test_the_first_rule_that_matches_allows(owner_id: str, values: dict[str, Any], rule: str) -> None:
    decision = ask(owner_id, **values)
    assert (decision.allowed, decision.rule, decision.reason) == (True, rule, f'rule "{rule}" allows it')


@pytest.mark.parametrize(
    ("owner_id", "values", "rule", "because"),
    [
        ("org_pilot", {"provider": "workday"}, "pilots", "does not allow this provider"),
        ("org_pilot", {"provider": "BambooHR"}, "pilots", "does not allow this provider"),
        ("org_pilot", {"provider": "xsap_"}, "pilots", "does not allow this provider"),
        ("org_pilot", {}, "pilots", "allows certain providers only: name a provider"),
        ("org_pilot", {"provider": "bamboohr", "claims": {"org": {"suspended": True}}}, "suspended", "denies it"),
        ("org_friend", {"provider": "bamboohr", "channel": Channel.AUTH_LINK}, "pilots", "does not allow auth links"),
        (
            "org_pilot",
            {"provider": "bamboohr", "connector_profile_id": "other"},
            "pilots",
            "does not allow this connector profile; leave it out to use the default one",
        ),
        (
            "org_trial_1",
            {"provider": "bamboohr"},
            "trial",
            "does not allow this provider; leave the provider out to pick from the categories it allows",
        ),
        (
            "org_trial_1",
            {"categories": (Category.ATS, Category.CRM)},
            "trial",
            "does not allow all of these categories",
        ),
    ],
)
def test_a_rule_refuses_what_it_does_not_name(owner_id: str, values: dict[str, Any], rule: str, because: str) -> None:
    decision = ask(owner_id, **values)
    assert (decision.allowed, decision.rule, decision.grant) == (False, rule, None)
    assert decision.reason == f'rule "{rule}" {because}'


@pytest.mark.parametrize("seats", [8, "07", True, None, [], {"seats": 7}])
def test_a_claim_of_another_value_or_kind_does_not_match(seats: object) -> None:
    assert ask("org_x", claims={"plan": "gold", "seats": seats}).rule is None


def test_services_bring_no_claims() -> None:
    request = Request("org_x", Channel.SERVICE, 60, provider="workday")
    assert not decide(POLICY, request).allowed
    whys = {considered.rule: considered.why for considered in consider(POLICY, request)}
    assert whys["gold"] == "it asks for claims, and there are none"
    assert whys["trial"] == "it is for other owners"
    assert whys["links by mail"] in {"it is for another channel", "it is for other owners"}


def test_explaining_stops_at_the_rule_that_decides() -> None:
    considered = consider(POLICY, Request("org_pilot", Channel.BROWSER, 60))
    assert [(entry.rule, entry.matched) for entry in considered] == [
        ("suspended", False),
        ("links by mail", False),
        ("pilots", True),
    ]


def test_lifetimes_are_clamped_and_never_lengthened() -> None:
    assert _grant(ask("org_trial_1")).expires_in == 300
    assert _grant(ask("org_trial_1", expires_in=120)).expires_in == 120
    assert _grant(ask("org_pilot", provider="bamboohr")).expires_in == 1800


def test_a_request_without_a_provider_is_narrowed_to_the_categories() -> None:
    assert _grant(ask("org_trial_1")).categories == (Category.HRIS, Category.ATS)
    assert _grant(ask("org_trial_1", categories=(Category.ATS,))).categories == (Category.ATS,)


def test_an_account_that_exists_may_be_repaired_where_categories_are_allowed() -> None:
    assert ask("org_trial_1", provider="bamboohr", has_account=True).allowed
    # Where a rule lists providers, one that was taken off the list is closed for repairs too.
    assert not ask("org_pilot", provider="workday", has_account=True).allowed


def test_multiple_is_dropped_where_it_is_not_allowed() -> None:
    gold = {"claims": {"plan": "gold", "seats": 7}, "provider": "workday", "multiple": True}
    assert _grant(ask("org_x", **gold)).multiple is False
    grant = _grant(ask("org_pilot", provider="bamboohr", multiple=True))
    assert (grant.multiple, grant.max_accounts_per_provider) == (True, 2)


def test_a_limited_number_of_accounts_needs_a_provider_to_count() -> None:
    rule = Rule("one", owners=("*",), providers=("*",), multiple=True, max_accounts_per_provider=2)
    request = Request("o", Channel.BROWSER, 60, multiple=True)
    refused = decide(Policy((rule,)), request)
    limits = 'rule "one" limits the accounts of each provider: name a provider to link a further account'
    assert (refused.allowed, refused.reason) == (False, limits)
    assert decide(Policy((rule,)), replace(request, provider="workday")).allowed
    assert decide(Policy((rule,)), replace(request, multiple=False)).allowed
    assert decide(Policy((replace(rule, max_accounts_per_provider=None),)), request).allowed


@given(owner_id=st.text(max_size=20), pattern=st.text(alphabet="ab*[].?\\", min_size=1, max_size=8))
def test_only_the_star_is_special_in_a_pattern(owner_id: str, pattern: str) -> None:
    rule = Rule("r", owners=(pattern,), providers=("*",))
    allowed = decide(Policy((rule,)), Request(owner_id, Channel.BROWSER, 60)).allowed
    if "*" not in pattern:
        assert allowed == (owner_id == pattern)
    else:
        first, last = pattern.split("*", maxsplit=1)[0], pattern.rsplit("*", maxsplit=1)[-1]
        assert not allowed or (owner_id.startswith(first) and owner_id.endswith(last))
        filled = pattern.replace("*", owner_id)
        assert decide(Policy((rule,)), Request(filled, Channel.BROWSER, 60)).allowed


def _grant(decision: Decision) -> Any:
    assert decision.allowed, decision.reason
    return decision.grant
