"""The example of the documentation is a policy, and does what the page says."""

import re
from pathlib import Path

from app.policy.file import _PERMISSIONS, parse_policy
from app.policy.rules import Channel, Request, decide

PAGE = (Path(__file__).parents[3] / "docs" / "policy.md").read_text()


def test_the_example_is_read_and_decides_as_described() -> None:
    [example] = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    policy = parse_policy(example)

    def rule(owner_id: str, **request: object) -> str | None:
        return decide(policy, Request(owner_id, **{"channel": Channel.BROWSER, "expires_in": 60, **request})).rule  # type: ignore[arg-type]

    assert rule("org_acme", claims={"org": {"suspended": True}}) == "suspended customers"
    assert rule("org_beta_1", provider="sap_x") == "pilots"
    assert rule("org_acme", channel=Channel.AUTH_LINK) == "onboarding by mail"
    assert rule("org_x", claims={"plan": "gold"}) == "gold plan"
    assert rule("org_x") == "everybody else"


def test_every_key_is_described() -> None:
    for key in _PERMISSIONS:
        assert f"| `{key}` |" in PAGE
