"""The tree keeps the house rules that no linter knows."""

from tests.checks.pages import ROOT
from tests.checks.rules import (
    loose_queries,
    replaced_words,
    routers_of_the_app,
    states_as_text,
    transactions_in_routes,
)

# Names and comments of columns stay: a database has them.
_OLD_WORDS_STAY = frozenset(
    {
        ("app/connect_sessions/tables.py", "door"),
        ("app/identity/service_keys/tables.py", "door"),
        ("docs/testing.md", "neighbours"),  # a folder's name
    }
)
_LOOKED_THROUGH = ("app/**/*.py", "sandbox/**/*.py", "sandbox/*.md", "docs/**/*.md", "README.md")

# Each is compared with text alone, or travels as text: there is no misspelling that mypy would have to see.
_TEXTS = frozenset({"db/database.py: Literal['sqlite', 'postgresql']"})


def test_no_route_opens_a_transaction() -> None:
    assert transactions_in_routes(ROOT) == []


def test_a_state_is_a_plain_enum_behind_the_edge() -> None:
    assert states_as_text(ROOT, _TEXTS) == []


def test_every_query_is_one_model_that_refuses_unknown_names() -> None:
    routers = routers_of_the_app()
    assert len(routers) > 5
    assert loose_queries(routers) == []


def test_a_replaced_word_does_not_come_back() -> None:
    found = [
        f"{name}:{line}: {word}"
        for pattern in _LOOKED_THROUGH
        for path in sorted(ROOT.glob(pattern))
        if (name := path.relative_to(ROOT).as_posix()) != "docs/glossary.md"
        for line, word in replaced_words(path.read_text(encoding="utf-8"))
        if (name, word) not in _OLD_WORDS_STAY
    ]
    assert found == []


def test_the_glossary_stays_short() -> None:
    rows = [line for line in (ROOT / "docs/glossary.md").read_text(encoding="utf-8").splitlines() if line[:2] == "| "]
    assert rows[0] == "| word | meaning | not |"
    assert len(rows) - 1 <= 25
