"""What the Hub calls from a browser: pickers, forms, edit mode."""

import base64
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.sandbox.look import Look

pytestmark = pytest.mark.anyio

GOOD = {"subdomain": "tailspin", "api_key": "key-12345678", "region": "eu"}


async def form(look: Look, token: str, provider: str = "bamboohr", **changes: object) -> httpx2.Response:
    body = {"integration_id": f"{provider}_profile", "credentials": {**GOOD, **changes}}
    return await look.hub(token).post("/hub/accounts", json=body)


async def integrations(look: Look, query: str = "", **session: object) -> list[str]:
    hub = look.hub((await look.mint(**session))["token"])
    return [row["provider"] for row in (await hub.get(f"/hub/connectors{query}")).json()["integrations"]]


async def test_any_page_may_call(look: Look) -> None:
    token = (await look.mint())["token"]
    preflight = await look.browser.options(
        "/hub/accounts/x",
        headers={
            "origin": "https://any.example",
            "access-control-request-method": "PATCH",
            "access-control-request-headers": "content-type,x-hub-session-token,x-hub-version",
        },
    )
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == "*"
    assert "x-hub-version" in preflight.headers["access-control-allow-headers"]
    for path, headers in (
        ("/hub/settings", {"x-hub-session-token": token}),
        ("/hub/settings", {}),
        ("/hub/accounts/none", {"x-hub-session-token": token}),
    ):
        answer = await look.browser.get(path, headers={"origin": "https://any.example", **headers})
        assert answer.headers["access-control-allow-origin"] == "*"


async def test_the_api_is_not_for_browsers(look: Look) -> None:
    answer = await look.api.get("/accounts", headers={"origin": "https://any.example"})
    assert "access-control-allow-origin" not in answer.headers


async def test_every_call_needs_a_living_token(look: Look) -> None:
    token = (await look.mint(expires_in=60))["token"]
    calls = (
        ("GET", "/hub/settings"), ("GET", "/hub/connectors"), ("GET", "/hub/connectors/bamboohr_profile"),
        ("GET", "/hub/accounts/x"), ("POST", "/hub/accounts"), ("PATCH", "/hub/accounts/x"),
        ("POST", "/hub/connection_attempts"), ("GET", "/hub/connection_attempts/x"),
        ("DELETE", "/hub/connection_attempts/x"),
    )  # fmt: skip
    look.clock.forward(60)
    for method, path in calls:
        for client in (look.browser, look.hub("foreign"), look.hub(token)):
            answer = await client.request(method, path, json={})
            assert answer.status_code == answer.json()["statusCode"] == 401


async def test_the_picker_lists_everything_the_session_allows(look: Look) -> None:
    everything = ["bamboohr", "workday", "salesforce", "sap_successfactors", "greenhouse"]
    assert await integrations(look) == everything
    assert await integrations(look, provider="workday") == ["workday"]
    assert await integrations(look, categories=["crm"]) == ["salesforce"]
    assert await integrations(look, categories=["crm"], provider="workday") == []
    assert await integrations(look, "?provider=bamboohr") == ["bamboohr"]
    assert await integrations(look, "?provider=bamboohr", provider="workday") == []
    assert await integrations(look, connector_profile_id="salesforce_profile") == ["salesforce"]
    await look.switch.post("/_sandbox/decisions", json={"unknown_provider": "accept"})
    assert await integrations(look, provider="unheard_of") == []


async def test_rows_have_what_the_hub_cannot_do_without(look: Look) -> None:
    hub = look.hub((await look.mint())["token"])
    answer = (await hub.get("/hub/connectors")).json()
    assert answer["external_trigger_token"]
    for row in answer["integrations"]:
        assert all(row[name] for name in ("name", "provider", "type", "integration_id", "version"))
        assert base64.b64decode(row["logo_url"].removeprefix("data:image/svg+xml;base64,")).startswith(b"<svg")
    assert [row["provider"] for row in answer["integrations"] if not row["active"]] == ["greenhouse"]


async def test_forms(look: Look) -> None:
    hub = look.hub((await look.mint())["token"])

    async def config(provider: str) -> Any:
        return (await hub.get(f"/hub/connectors/{provider}_profile")).json()["config"]

    bamboo = await config("bamboohr")
    assert bamboo["type"] == "custom"
    kinds = {field["key"]: field["type"] for field in bamboo["configFields"]}
    assert kinds == {"subdomain": "text", "api_key": "password", "region": "select", "note": "text_area"}
    by_key = {field["key"]: field for field in bamboo["configFields"]}
    assert by_key["subdomain"]["validation"]["type"] == "html-pattern"
    assert by_key["api_key"]["secret"] is True
    assert {option["value"] for option in by_key["region"]["options"]} == {"eu", "us"}
    assert ((await config("salesforce"))["type"], (await config("salesforce"))["grantType"]) == (
        "oauth2",
        "authorization_code",
    )
    assert (await config("sap_successfactors"))["grantType"] == "client_credentials"


async def test_conditional_fields_are_decided_by_the_server(look: Look) -> None:
    hub = look.hub((await look.mint(type="test"))["token"])
    fields = (await hub.get("/hub/connectors/bamboohr_profile")).json()["config"]["configFields"]
    assert "trial_code" in [field["key"] for field in fields]


async def test_what_the_session_does_not_allow_does_not_exist(look: Look) -> None:
    hub = look.hub((await look.mint(provider="workday"))["token"])
    assert (await hub.get("/hub/connectors/bamboohr_profile")).status_code == 404
    assert (await hub.get("/hub/connectors/unknown")).status_code == 404
    assert (await form(look, (await look.mint(provider="workday"))["token"])).status_code == 404
    inactive = look.hub((await look.mint())["token"])
    assert (await inactive.get("/hub/connectors/greenhouse_profile")).status_code == 412


async def test_a_form_links_for_the_owner_of_the_session(look: Look) -> None:
    token = (await look.mint(origin_username="ivy", label="Payroll", type="test", shared=False, metadata={"m": 1}))[
        "token"
    ]
    answer = await form(look, token)
    assert answer.status_code == 201
    account = (await look.api.get(f"/accounts/{answer.json()['id']}")).json()
    assert answer.json() == {"id": account["id"], "provider": "bamboohr"}
    assert account["origin_owner_id"] == "org_1"
    assert account["origin_owner_name"] == "One Ltd"
    assert (account["origin_username"], account["label"], account["type"]) == ("ivy", "Payroll", "test")
    assert (account["shared"], account["status"]) == (False, "active")
    assert account["setup_information"] == {"subdomain": "tailspin", "region": "eu"}
    assert "key-12345678" not in str(account)
    assert look.project.accounts.get(account["id"]).metadata == {"m": 1}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"api_key": ""}, "API key is required"),
        ({"subdomain": "Not Valid"}, "Only lower-case letters, digits and dashes"),
        ({"region": "mars"}, "Region is not one of the choices"),
        ({"api_key": ["x"]}, "API key must be text"),
        ({"api_key": "wrong"}, "Invalid credentials"),
    ],
)
async def test_a_bad_form_is_400_in_words_the_hub_shows(look: Look, change: dict[str, Any], message: str) -> None:
    answer = await form(look, (await look.mint())["token"], **change)
    assert (answer.status_code, answer.json()["message"]) == (400, message)
    assert (await look.api.get("/accounts")).json() == []


async def test_the_provider_may_say_more(look: Look) -> None:
    answer = await form(look, (await look.mint())["token"], api_key="wrong")
    assert answer.json()["provider_response"]


async def test_success_is_reported_for_an_account_that_does_not_work(look: Look) -> None:
    answer = await form(look, (await look.mint())["token"], api_key="broken")
    assert answer.status_code == 201
    account = (await look.api.get(f"/accounts/{answer.json()['id']}")).json()
    assert account["status"] == "error"
    assert account["status_reasons"][0]["timestamp"]


async def test_client_credentials_are_a_form(look: Look) -> None:
    body = {"company_id": "c", "client_id": "i", "client_secret": "s"}
    token = (await look.mint())["token"]
    answer = await look.hub(token).post(
        "/hub/accounts", json={"integration_id": "sap_successfactors_profile", "credentials": body}
    )
    assert answer.json()["provider"] == "sap_successfactors"


async def test_a_popup_connector_is_not_a_form(look: Look) -> None:
    assert (await form(look, (await look.mint())["token"], "salesforce")).status_code == 400


async def test_the_same_owner_name_and_provider_is_the_same_account(look: Look) -> None:
    first = (await form(look, (await look.mint())["token"])).json()["id"]
    assert (await form(look, (await look.mint())["token"])).json()["id"] == first
    assert (await form(look, (await look.mint(origin_owner_name="Renamed"))["token"])).json()["id"] != first
    assert (await form(look, (await look.mint(origin_owner_id="org_2"))["token"])).json()["id"] != first
    assert len((await look.api.get("/accounts")).json()) == 3


async def test_multiple_makes_another_one_each_time(look: Look) -> None:
    token = (await look.mint(multiple=True))["token"]
    made = {(await form(look, token)).json()["id"] for _ in range(3)}
    assert len(made) == 3


async def test_edit_mode_by_account_id_and_by_key(look: Look) -> None:
    account = (await form(look, (await look.mint())["token"])).json()["id"]

    async def existing(**session: object) -> Any:
        hub = look.hub((await look.mint(**session))["token"])
        return (await hub.get("/hub/settings")).json().get("existing_account_id")

    assert await existing(account_id=account) == account
    assert await existing(provider="bamboohr") == account
    assert await existing() is None
    assert await existing(provider="workday") is None
    assert await existing(provider="bamboohr", multiple=True) is None
    assert await existing(provider="bamboohr", origin_owner_id="org_2") is None
    assert await existing(account_id=account, multiple=True) == account


async def test_an_edit_shows_secrets_redacted(look: Look) -> None:
    account = (await form(look, (await look.mint())["token"])).json()["id"]
    hub = look.hub((await look.mint(account_id=account))["token"])
    shown = (await hub.get(f"/hub/accounts/{account}")).json()
    assert shown == {
        "secureId": account,
        "provider": "bamboohr",
        "setupInformation": {"subdomain": "tailspin", "region": "eu"},
        "secrets": {"api_key": "__secretvalue:**redacted**5678"},
        "version": "1.0.0",
        "authConfigKey": "custom",
        "environment": "production",
        "integrationId": "bamboohr_profile",
    }


async def test_a_short_secret_shows_nothing_of_itself(look: Look) -> None:
    account = (await form(look, (await look.mint())["token"], api_key="abc")).json()["id"]
    hub = look.hub((await look.mint())["token"])
    shown = (await hub.get(f"/hub/accounts/{account}")).json()
    assert shown["secrets"] == {"api_key": "__secretvalue:**redacted**"}


async def test_patch_keeps_the_id_and_what_was_not_typed_again(look: Look) -> None:
    account = (await form(look, (await look.mint())["token"])).json()["id"]
    await look.switch.patch(f"/_sandbox/accounts/{account}", json={"status": "error"})
    hub = look.hub((await look.mint(account_id=account))["token"])
    body = {"integration_id": "someone_elses", "credentials": {"region": "us"}}
    answer = await hub.patch(f"/hub/accounts/{account}", json=body)
    assert answer.status_code == 200
    kept = look.project.accounts.get(account)
    assert kept.setup_information == {"subdomain": "tailspin", "region": "us"}
    assert kept.secrets == {"api_key": "key-12345678"}
    assert kept.status == "active"
    assert len((await look.api.get("/accounts")).json()) == 1


async def test_post_under_an_edit_session_updates(look: Look) -> None:
    account = (await form(look, (await look.mint())["token"])).json()["id"]
    sessions: list[dict[str, Any]] = [
        {"account_id": account},
        {"account_id": account, "multiple": True},
        {"provider": "bamboohr"},
    ]
    for session in sessions:
        answer = await form(look, (await look.mint(**session))["token"], subdomain="second")
        assert answer.json()["id"] == account
    assert look.project.accounts.get(account).setup_information["subdomain"] == "second"
    assert len((await look.api.get("/accounts")).json()) == 1


async def test_strangers_accounts_do_not_exist(look: Look) -> None:
    mine = (await form(look, (await look.mint())["token"])).json()["id"]
    other = (await form(look, (await look.mint(origin_owner_id="org_2"))["token"])).json()["id"]
    sessions: list[dict[str, Any]] = [{}, {"account_id": mine}]
    for session in sessions:
        hub = look.hub((await look.mint(**session))["token"])
        assert (await hub.get(f"/hub/accounts/{other}")).status_code == 404
        body = {"integration_id": "bamboohr_profile", "credentials": GOOD}
        assert (await hub.patch(f"/hub/accounts/{other}", json=body)).status_code == 404
    second = (await form(look, (await look.mint(multiple=True))["token"])).json()["id"]
    hub = look.hub((await look.mint(account_id=mine))["token"])
    assert (await hub.get(f"/hub/accounts/{second}")).status_code == 404


async def test_an_edit_of_an_account_that_is_gone_is_404(look: Look) -> None:
    account = (await form(look, (await look.mint())["token"])).json()["id"]
    token = (await look.mint(account_id=account))["token"]
    await look.api.delete(f"/accounts/{account}")
    assert (await form(look, token)).status_code == 404


async def test_the_auth_link_page_embeds_the_hub_where_it_is_built(
    look: Look, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = await look.mint()
    link = session["auth_link_url"]
    page = await look.browser.get(link)
    assert page.status_code == 200
    assert "Node" in page.text
    assert (await look.browser.get("/embedded/webcomponent.js")).status_code == 404
    script = tmp_path / "webcomponent.js"
    script.write_text("/* the vendor's */")
    monkeypatch.setattr(look.project, "config", replace(look.project.config, web_component=str(script)))
    page = await look.browser.get(link)
    assert f'<stackone-hub token="{session["token"]}" base-url="http://stackone.test"' in page.text
    assert 'show-footer-links="false"' in page.text
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    assert page.headers["cache-control"] == "no-store"
    assert (await look.browser.get("/embedded/webcomponent.js")).text == "/* the vendor's */"


async def test_a_dead_auth_link_says_so(look: Look) -> None:
    for token in ("", "x", '"><script>'):
        page = await look.browser.get("/embedded/integrations", params={"token": token})
        assert page.status_code == 401
        assert "expired" in page.text
        assert "<script>" not in page.text
