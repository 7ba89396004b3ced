"""Writes the page that lists what the sandbox knows only by inference: `python -m tests.contract.page`."""

from collections.abc import Iterator
from pathlib import Path

from tests.contract.facts import FAMILIES, Facts, decisions, read_facts

PAGE = Path(__file__).resolve().parents[2] / "sandbox" / "CONTRACT.md"
_HEAD = """# What the sandbox is sure of, and what it is not

Written by `python -m tests.contract.page` from the tables in [`tests/contract`](../tests/contract). They hold each
field and each answer with where it is known from: *documented* by the vendor, *observed* in the vendor's own Hub at
work, or *inferred*. The tests there compare the sandbox with the tables on the wire, field by field. Nothing may rely
on what is inferred.
"""


def written_page() -> str:
    """Return the page."""
    every = [read_facts(family) for family in FAMILIES]
    counts = "\n".join(f"| {FAMILIES[facts.family]} | {' | '.join(_counted(facts))} |" for facts in every)
    parts = [
        _HEAD,
        f"## How much there is\n\n| | documented | observed | inferred |\n|---|---|---|---|\n{counts}\n",
        "## What nobody outside knows, and the sandbox decides\n\n"
        + "".join(f"- {text}\n" for text in decisions().values()),
        "## Fields and answers that are inferred\n\n" + "".join(f"- {line}\n" for line in _inferred(every)),
        "## Known fields that the sandbox never sends\n\n" + "".join(f"- {line}\n" for line in _unsent(every)),
    ]
    return "\n".join(parts)


def _standings(facts: Facts) -> Iterator[str]:
    for fact in facts.every_field():
        yield fact.row["from"]
    for request in facts.requests.values():
        for row in request["fields"].values():
            yield row["from"]
    for answers in facts.calls.values():
        for row in answers.values():
            yield row["from"]


def _counted(facts: Facts) -> list[str]:
    standings = list(_standings(facts))
    return [str(standings.count(name)) for name in ("documented", "observed", "inferred")]


def _inferred(every: list[Facts]) -> Iterator[str]:
    for facts in every:
        for call, answers in facts.calls.items():
            if found := [status for status, row in answers.items() if row["from"] == "inferred"]:
                yield f"`{call}` answers {', '.join(found)}"
        for kind in (facts.shapes, facts.requests):
            for shape in kind.values():
                names = [f"`{name}`" for name, row in shape["fields"].items() if row["from"] == "inferred"]
                if names:
                    yield f"{shape['about']}: {', '.join(names)}"
        for name, row in facts.rest.get("webhook_headers", {}).items():
            if row["from"] == "inferred":
                yield f"a webhook's header `{name}`"


def _unsent(every: list[Facts]) -> Iterator[str]:
    for facts in every:
        for fact in facts.every_field():
            if "unsent" in fact.row:
                yield f"`{fact.name}` of {facts.shapes[fact.shape]['about']}: {fact.row['unsent']}"


if __name__ == "__main__":
    PAGE.write_text(written_page(), encoding="utf-8")
