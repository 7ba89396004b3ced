"""A broken policy file stops the start, and names line and rule."""

from pathlib import Path

import pytest

from app.errors import SettingsError
from app.policy.file import parse_policy, read_policy
from app.policy.rules import Channel, Policy, Rule
from app.stackone.models import Category

GOOD = '[[rule]]\nname = "all"\nowners = ["*"]\nproviders = ["*"]\n'


def mistakes_of(text: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        parse_policy(text)
    return list(caught.value.mistakes)


def test_a_good_file_is_read_in_order_with_its_lines() -> None:
    policy = parse_policy(f'# who may open what\n\n[[rule]]\nname = "no"\nowners = ["x"]\ndeny = true\n\n{GOOD}')
    assert policy.rules is not None
    assert [(rule.name, rule.line) for rule in policy.rules] == [("no", 3), ("all", 8)]


def test_everything_that_a_rule_can_say_is_read() -> None:
    [rule, least] = (
        parse_policy("""
[groups]
pilots = ["org_1", "org_2"]
[[rule]]
name = "all of it"
owners = ["org_0"]
groups = ["pilots"]
claims = { plan = ["gold", "silver"], seats = 7 }
channel = ["browser", "auth_link"]
providers = ["bamboohr"]
categories = ["hris", "ats"]
connector_profiles = ["profile-*"]
multiple = true
max_accounts_per_provider = 3
session_lifetime = 600
auth_links = true
[[rule]]
name = "no"
channel = "service"
deny = true
""").rules
        or ()
    )
    assert rule == Rule(
        name="all of it",
        line=4,
        owners=("org_0", "org_1", "org_2"),
        claims={"plan": ("gold", "silver"), "seats": "7"},
        channels=frozenset({Channel.BROWSER, Channel.AUTH_LINK}),
        deny=False,
        providers=("bamboohr",),
        categories=(Category.HRIS, Category.ATS),
        connector_profiles=("profile-*",),
        multiple=True,
        max_accounts_per_provider=3,
        session_lifetime=600,
        auth_links=True,
    )
    assert least == Rule(name="no", line=17, channels=frozenset({Channel.SERVICE}), deny=True)


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ('[[rule]]\nname = "a\n', "policy: is not valid TOML: "),
        ("", "policy: has no [[rule]], so that nobody could open anything"),
        ("rule = 7", "policy, line 1: has no [[rule]], so that nobody could open anything"),
        ("rule = [7]", "policy, line 1: has no [[rule]], so that nobody could open anything"),
        (GOOD.replace('"all"', "7"), "policy, line 2, rule number 1: name: "),
        (GOOD.replace('"all"', '""'), "policy, line 2, rule number 1: name: "),
        # One header is not recognized: a line of the wrong rule would be worse than none.
        (GOOD.replace("[[rule]]", '[["\\u0072ule"]]') + GOOD.replace("all", "late"), 'policy, rule "late": is never'),
        (GOOD + "\n[other]\nx = 1\n", "policy, line 6: unknown key 'other'; there are [groups] and [[rule]]"),
        ("\ndefault = 1\n" + GOOD, "policy, line 2: unknown key 'default'; there are [groups] and [[rule]]"),
        ("groups = 1\n" + GOOD, "policy, line 1: [groups] is a table of lists of owner ids"),
        ('[groups]\na = ["o"]\nb = []\n' + GOOD, "policy, line 3: group 'b' must be a list of one or more owner ids"),
        ("[groups]\nb = [1]\n" + GOOD, "policy, line 2: group 'b' must be a list of one or more owner ids"),
        ('[[rule]]\nowners = ["*"]\ndeny = true\n', "policy, line 1, rule number 1: name: Field required"),
        (
            GOOD.replace("providers", "provider"),
            (
                'policy, line 4, rule "all": provider: unknown key; a rule has name, owners, groups, claims, channel,'
                " deny, providers, categories, connector_profiles, multiple, max_accounts_per_provider,"
                " session_lifetime, auth_links"
            ),
        ),
        (
            'rule = [{ name = "inline", owners = ["*"], deny = true, nonsense = 1 }]',
            'policy, rule "inline": nonsense: unknown key',
        ),
        (
            GOOD.replace("*", "x") + 'multiple = true\n[[rule]]\nmultiple = 1\nname = "b"\n',
            'policy, line 7, rule "b": multiple: Input should be a valid boolean',
        ),
        (
            GOOD.replace('["*"]\nproviders', "[]\nproviders"),
            'policy, line 3, rule "all": owners: ',
        ),
        (GOOD.replace('owners = ["*"]', 'owners = "*"'), 'policy, line 3, rule "all": owners: '),
        (GOOD.replace('owners = ["*"]', "owners = [7]"), 'policy, line 3, rule "all": owners: '),
        (GOOD + "multiple = 1\n", 'policy, line 5, rule "all": multiple: Input should be a valid boolean'),
        (GOOD + 'multiple = "yes"\n', 'policy, line 5, rule "all": multiple: Input should be a valid boolean'),
        (GOOD + "session_lifetime = 5\n", 'policy, line 5, rule "all": session_lifetime: '),
        (GOOD + 'session_lifetime = "600"\n', 'policy, line 5, rule "all": session_lifetime: '),
        (GOOD + "max_accounts_per_provider = 0\n", 'policy, line 5, rule "all": max_accounts_per_provider: '),
        (GOOD + "max_accounts_per_provider = true\n", 'policy, line 5, rule "all": max_accounts_per_provider: '),
        (GOOD + 'categories = ["hirs"]\n', 'policy, line 5, rule "all": categories: '),
        (GOOD + 'channel = "window"\n', 'policy, line 5, rule "all": channel: '),
        (GOOD + "[rule.claims]\nplan = 1.5\n", 'policy, line 5, rule "all": claims: '),
        (GOOD + "claims = {}\n", 'policy, line 5, rule "all": claims: '),
        (GOOD + 'groups = ["x"]\n', "policy, line 5, rule \"all\": there is no group 'x'"),
        (GOOD + "deny = true\n", 'policy, line 4, rule "all": a rule that denies allows nothing; leave this out'),
        (GOOD + "deny = false\n", 'policy, line 5, rule "all": deny: '),
        ('[[rule]]\nname = "r"\nproviders = ["x"]\n', 'policy, line 1, rule "r": says nobody; '),
        ('[[rule]]\nname = "r"\nowners = ["x"]\nmultiple = true\n', 'policy, line 1, rule "r": allows nothing; '),
        ("[[rule]]\n" + GOOD, "policy, line 1, rule number 1: name: Field required"),
        (
            '[[rule]]\nname = "a"\nowners = ["x"]\ndeny = true\n' * 2,
            'policy, line 6, rule "a": another rule has this name, line 1',
        ),
        (
            GOOD + '[[rule]]\nname = "late"\nowners = ["x"]\ndeny = true\n',
            'policy, line 5, rule "late": is never reached: rule "all", line 1 matches everybody',
        ),
    ],
)
def test_a_mistake_names_line_and_rule(text: str, mistake: str) -> None:
    assert mistakes_of(text)[0].startswith(mistake)


def test_a_claims_text_keeps_its_case_and_other_values_are_spelled_as_in_tokens() -> None:
    claims = 'claims = { plan = "Gold", seats = 7, vip = true, tiers = ["A", 1, false] }'
    [rule] = parse_policy(f'[[rule]]\nname = "r"\ndeny = true\n{claims}\n').rules or ()
    assert rule.claims == {"plan": "Gold", "seats": "7", "vip": "true", "tiers": ("A", "1", "false")}


def test_the_line_of_broken_toml_is_told() -> None:
    assert "line 2" in mistakes_of('[[rule]]\nname = "a\n')[0]


def test_all_mistakes_come_at_once() -> None:
    found = mistakes_of(GOOD + 'multiple = 1\nauth_links = 2\n[[rule]]\nname = "b"\nownrs = ["x"]\n')
    assert len(found) == 3
    assert [mistake.partition(":")[0] for mistake in found] == [
        'policy, line 5, rule "all"',
        'policy, line 6, rule "all"',
        'policy, line 9, rule "b"',
    ]


def test_a_header_inside_a_text_is_no_rule() -> None:
    text = '[[rule]]\nname = """\n[[rule]]\nx"""\nowners = ["x"]\ndeny = true\n' + GOOD + "nonsense = 1\n"
    assert mistakes_of(text)[0].startswith('policy, line 11, rule "all": nonsense: unknown key')


def test_no_mistake_quotes_a_value() -> None:
    assert "canary" not in "".join(mistakes_of(GOOD + 'session_lifetime = "canary"\ndoor = "canary"\n'))


def test_a_file_that_cannot_be_read_is_a_mistake(tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"

    def mistake() -> str:
        with pytest.raises(SettingsError) as caught:
            read_policy(file)
        [told] = caught.value.mistakes
        return told

    assert mistake() == f"policy file {file}: cannot be read (FileNotFoundError)"
    for content, line in ((b"# fine\n\xff", 2), (b"\n\xff\n\n", 2), (b"\xff\n", 1)):
        file.write_bytes(content)
        assert mistake() == f"policy file {file}, line {line}: is not UTF-8"
    file.write_text("x = 1\n" + GOOD)
    assert mistake().startswith(f"policy file {file}, line 1: unknown key 'x'")
    file.write_text(GOOD, encoding="utf-8-sig")
    assert read_policy(file) == parse_policy(GOOD)
    assert read_policy(None) == Policy()


def test_a_file_may_have_a_megabyte_and_no_more() -> None:
    largest = GOOD + "#" * (1024 * 1024 - len(GOOD))
    assert parse_policy(largest) == parse_policy(GOOD)
    assert mistakes_of(largest + "#") == ["policy: is larger than a policy can sensibly be"]
