"""Every setting stands in docs/configuration.md with what it means, its default and an example that is accepted."""

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import TypeAdapter
from pydantic.fields import FieldInfo

from app.settings import Environment, Section, Settings
from tests.checks.pages import section_of

_SECRET = {"secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwzHkkYJKD"}
_OF_ISSUERS: dict[str, dict[str, object]] = {
    "tenants": {"issuer": "https://login.example.com/{tid}/", "jwks_uri": "https://login.example.com/keys"},
    "secret": {"algorithms": ["HS256"]},
    "secrets": {"algorithms": ["HS256"]},
}
# What else has to be said where the example of one setting is used.
_GOES_WITH: dict[str, dict[str, dict[str, object]]] = {
    "IssuerSettings": _OF_ISSUERS,
    "MachineIssuerSettings": _OF_ISSUERS,
    "ClaimPaths": {"owner_id_member": {"owner_id_form": "map"}, "owner_id_chosen_by": {"owner_id_form": "list"}},
    "PushDestination": {name: {**_SECRET} for name in ("name", "url", "events", "owners")},
    "InvitationSettings": {
        "page_url": {"secrets": ["at-least-32-characters-nobody-guesses"]},
        "secrets": {"page_url": "https://app.example.com/connect"},
    },
}


def fields_of(
    model: type[Section | Settings], path: tuple[str, ...] = ()
) -> Iterator[tuple[type[Section | Settings], str, FieldInfo]]:
    """Yield every setting with the section that it is in, those inside of lists too."""
    for name, field in model.model_fields.items():
        inner = section_of(field.annotation)
        # A section itself is no setting; a list of objects is one, and each member another.
        if inner is None or path:
            yield model, name, field
        if inner is not None:
            yield from fields_of(inner, (*path, name))


SETTINGS = [pytest.param(*each, id=f"{each[0].__name__}.{each[1]}") for each in fields_of(Settings)]


def tells(default: object) -> bool:
    """Whether a default shows how a value is written: nothing, or an empty list, does not."""
    return default is not None and default not in ((), [], {})


@pytest.mark.parametrize(("model", "name", "field"), SETTINGS)
def test_a_setting_is_explained_and_shown(model: type[Section | Settings], name: str, field: FieldInfo) -> None:
    assert field.description, f"say what {name} is for"
    has_default = not field.is_required() and tells(field.get_default(call_default_factory=True))
    assert field.examples or has_default, f"show how {name} is written: Field(examples=[...])"
    for example in field.examples or ():
        assert_accepted(model, name, example)


def assert_accepted(model: type[Section | Settings], name: str, example: object) -> None:
    """Have a section read an example, beside what else it cannot do without, and look for what production refuses."""
    required = {
        other: field.examples[0]
        for other, field in model.model_fields.items()
        if field.is_required() and field.examples
    }
    values = {**required, **_GOES_WITH.get(model.__name__, {}).get(name, {}), name: example}
    if not issubclass(model, Section):
        annotation: Any = model.model_fields[name].annotation
        TypeAdapter(annotation).validate_python(example)
        return
    section = model.model_validate(values)
    refused = [reason for setting, reason in section.unsafe(Environment.PRODUCTION) if setting.startswith(name.upper())]
    # No file of the examples is on this machine.
    assert [reason for reason in refused if "file" not in reason] == []
