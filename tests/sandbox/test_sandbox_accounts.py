"""The accounts API, its pages, and the shapes that a listing may have."""

from typing import Any

import pytest

from sandbox.stackone import Project
from tests.sandbox.look import Look

pytestmark = pytest.mark.anyio

V1 = {
    "id", "provider", "provider_name", "status", "status_reasons", "origin_owner_id", "origin_owner_name",
    "origin_username", "credentials", "setup_information", "label", "type", "shared", "created_at", "updated_at",
}  # fmt: skip


@pytest.fixture
async def thirty(look: Look) -> list[str]:
    return [(await look.link(origin_owner_id=f"org_{n % 3}"))["id"] for n in range(30)]


async def ids(look: Look, query: str = "") -> list[str]:
    answer = await look.api.get(f"/accounts{query}")
    assert answer.status_code == 200
    return [row["id"] for row in answer.json()]


async def test_an_account_has_the_documented_fields(look: Look) -> None:
    account = await look.link()
    assert set(account) == V1
    assert account["provider_name"] == "BambooHR"
    assert (await look.api.get(f"/accounts/{account['id']}")).json() == account


async def test_ids_take_turns_between_two_kinds(look: Look) -> None:
    made = [(await look.link())["id"] for _ in range(6)]
    for nanoid, number in zip(made[::2], made[1::2], strict=True):
        assert len(nanoid) == 21
        assert len(number) == 20
        assert number.isdigit()
        assert int(number) > 2**63


async def test_the_list_is_a_bare_array_of_25(look: Look, thirty: list[str]) -> None:
    assert await ids(look) == thirty[:25]
    assert await ids(look, "?page=1") == thirty[:25]
    assert await ids(look, "?page=2") == thirty[25:]
    assert await ids(look, "?page=3") == []
    assert await ids(look, "?page=2&page_size=7") == thirty[7:14]


@pytest.mark.parametrize("query", ["?page=-1", "?page_size=0", "?page=one", "?page_size=1.5"])
async def test_senseless_pages_are_400(look: Look, query: str) -> None:
    assert (await look.api.get(f"/accounts{query}")).status_code == 400


async def test_filters(look: Look) -> None:
    a = (await look.link(provider="bamboohr", origin_owner_id="o1"))["id"]
    b = (await look.link(provider="workday", origin_owner_id="o2", status="error"))["id"]
    c = (await look.link(provider="salesforce", origin_owner_id="o1", status="suspended"))["id"]
    assert await ids(look, "?provider=workday") == [b]
    assert await ids(look, "?providers=workday&providers=bamboohr") == [a, b]
    assert await ids(look, "?origin_owner_id=o1") == [a, c]
    assert await ids(look, "?origin_owner_ids=o1&origin_owner_ids=o2") == [a, b, c]
    assert await ids(look, f"?account_ids={c}&account_ids={a}") == [a, c]
    assert await ids(look, "?status=error&status=suspended") == [b, c]
    assert await ids(look, "?origin_owner_id=o1&status=active") == [a]
    assert await ids(look, "?origin_owner_id=nobody") == []


@pytest.mark.parametrize(
    ("body", "pages"),
    [
        ({"first_page": 0}, {"?page=0&page_size=10": (0, 10), "?page=1&page_size=10": (10, 20)}),
        ({"ignore_page": True}, {"?page=1&page_size=10": (0, 10), "?page=2&page_size=10": (0, 10)}),
        ({"repeat_rows": True}, {"?page=1&page_size=10": (0, 10), "?page=2&page_size=10": (9, 19)}),
        ({"repeat_rows": True}, {"?page=4&page_size=10": (27, 30), "?page=2&page_size=1": (1, 2)}),
        ({"end_early": 12}, {"?page=2&page_size=10": (10, 12), "?page=3&page_size=10": (0, 0)}),
        ({"max_page_size": 5}, {"?page=1&page_size=10": (0, 5), "?page=2&page_size=10": (5, 10)}),
    ],
)
async def test_pages_can_be_cut_differently(
    look: Look, thirty: list[str], body: dict[str, Any], pages: dict[str, tuple[int, int]]
) -> None:
    await look.switch.post("/_sandbox/listing", json=body)
    for query, (start, stop) in pages.items():
        assert await ids(look, query) == thirty[start:stop]
    await look.switch.post("/_sandbox/listing", json={})
    assert await ids(look, "?page=2&page_size=10") == thirty[10:20]


async def test_lists_can_have_an_envelope_and_the_names_of_v2(look: Look) -> None:
    account = await look.link()
    await look.switch.post("/_sandbox/listing", json={"envelope": True, "names": "v2"})
    (row,) = (await look.api.get("/accounts")).json()["data"]
    assert row["connector"] == account["provider"]
    assert row["owner_id"] == "org_1"
    assert row["owner_name"] == "One Ltd"
    assert not {"provider", "origin_owner_id", "origin_owner_name"} & set(row)
    await look.switch.post("/_sandbox/listing", json={"names": "v3"})
    assert (await look.api.get("/accounts")).json()["data"]


async def test_v2(look: Look) -> None:
    account = await look.link(connector_profile_id="prof_1")
    await look.link(provider="workday", origin_owner_id="org_2")
    (row,) = (await look.api.get("/v2/accounts?owner_id=org_1&connector=bamboohr")).json()
    assert row == (await look.api.get(f"/v2/accounts/{account['id']}")).json()
    assert row["connector"] == "bamboohr"
    assert row["connector_profile_id"] == "prof_1"
    assert (await look.api.get("/v2/accounts?connector_profile_id=other")).json() == []
    assert (await look.api.get("/v2/accounts/unknown")).status_code == 404


async def test_meta(look: Look) -> None:
    account = await look.link(provider="salesforce")
    meta = (await look.api.get(f"/accounts/{account['id']}/meta")).json()
    assert set(meta) == {"provider", "category", "models"}
    assert meta["category"] == "crm"


async def test_patch_changes_even_the_owner_and_hides_credentials(look: Look) -> None:
    account = await look.link()
    body = {
        "origin_owner_id": "org_9",
        "label": "moved",
        "credentials": {"api_key": "canary"},
        "secrets": {"token": "canary"},
        "setup_information": {"subdomain": "s"},
        "integration_id": "prof",
        "environment": "production",
        "origin_username": None,
    }
    answer = await look.api.patch(f"/accounts/{account['id']}", json=body)
    assert answer.status_code == 200
    changed = answer.json()
    assert (changed["origin_owner_id"], changed["label"]) == ("org_9", "moved")
    assert changed["updated_at"] > account["updated_at"]
    assert "canary" not in (await look.api.get(f"/accounts/{account['id']}")).text
    assert look.project.accounts.get(account["id"]).secrets == {"api_key": "canary", "token": "canary"}


async def test_patch_refuses_what_is_not_documented(look: Look) -> None:
    account = await look.link()
    for body in ({"status": "active"}, {"type": "PROD"}, {"credentials": "x"}):
        assert (await look.api.patch(f"/accounts/{account['id']}", json=body)).status_code == 400
    assert (await look.api.get(f"/accounts/{account['id']}")).json() == account


async def test_delete_answers_with_the_account_and_then_404(look: Look) -> None:
    account = await look.link()
    path = f"/accounts/{account['id']}"
    answer = await look.api.delete(path)
    assert answer.status_code == 200
    assert answer.json()["id"] == account["id"]
    for method, url in (("GET", path), ("PATCH", path), ("DELETE", path), ("GET", path + "/meta")):
        again = await look.api.request(method, url, json={})
        assert again.status_code == 404
        assert set(again.json()) == {"statusCode", "message", "timestamp"}


async def test_updated_at_only_ever_grows_while_the_clock_stands(look: Look) -> None:
    account = await look.link()
    stamps = [account["updated_at"]]
    for _ in range(5):
        answer = await look.switch.patch(f"/_sandbox/accounts/{account['id']}", json={})
        stamps.append(answer.json()["updated_at"])
    stamps.append((await look.link())["updated_at"])
    assert stamps == sorted(set(stamps))
    assert all(stamp.endswith("Z") and len(stamp) == 24 for stamp in stamps)


async def test_switches_link_change_and_unlink(look: Look) -> None:
    account = await look.link(id="fixed-id", status="weird", credentials={"k": "canary"}, origin_owner_name=None)
    assert (account["id"], account["status"], account["credentials"]) == ("fixed-id", "weird", {"k": "canary"})
    assert account["origin_owner_name"] is None
    again = await look.switch.post("/_sandbox/accounts", json={"id": "fixed-id"})
    assert again.status_code == 409
    reasons = [{"code": "x", "timestamp": "2026-01-01T00:00:00.000Z"}]
    changed = await look.switch.patch(
        "/_sandbox/accounts/fixed-id", json={"status": "error", "status_reasons": reasons, "updated_at": "2001"}
    )
    assert (changed.json()["status"], changed.json()["status_reasons"]) == ("error", reasons)
    assert changed.json()["updated_at"] == "2001"
    assert (await look.switch.delete("/_sandbox/accounts/fixed-id")).status_code == 200
    assert (await look.switch.delete("/_sandbox/accounts/fixed-id")).status_code == 404
    assert (await look.switch.post("/_sandbox/accounts", json={"colour": "red"})).status_code == 400


async def test_linking_elsewhere_makes_a_new_account_unless_told_to_go_by_the_key(look: Look) -> None:
    first, second = await look.link(), await look.link()
    assert first["id"] != second["id"]
    assert (await look.link(multiple=False, label="again"))["id"] == first["id"]
    renamed = await look.link(multiple=False, origin_owner_name="One Limited")
    assert renamed["id"] not in (first["id"], second["id"])


async def test_accounts_can_be_carried_over_to_another_project(look: Look) -> None:
    await look.link(status="error", setup_information={"a": 1})
    other = Project(look.project.config)
    other.accounts.restore(look.project.accounts.dump())
    assert other.accounts.dump() == look.project.accounts.dump()


async def test_reset_forgets_everything(look: Look) -> None:
    await look.link()
    token = (await look.mint())["token"]
    await look.switch.post("/_sandbox/listing", json={"envelope": True})
    await look.switch.post("/_sandbox/faults", json={"status": 500})
    await look.switch.post("/_sandbox/webhooks", json={"mode": "drop"})
    await look.switch.post("/_sandbox/reset")
    assert (await look.api.get("/accounts")).json() == []
    assert (await look.hub(token).get("/hub/settings")).status_code == 401
    assert (await look.switch.get("/_sandbox/deliveries")).json() == []
    assert (await look.switch.get("/_sandbox/faults")).json() == []
    assert look.project.webhooks.settings.mode == "deliver"
