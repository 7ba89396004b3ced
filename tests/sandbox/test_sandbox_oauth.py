"""The OAuth popup from end to end, and what an attempt can become."""

from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest

from tests.sandbox.look import Look

pytestmark = pytest.mark.anyio

CALLBACK = "http://stackone.test/embedded/accounts/callback"


class Popup:
    """A popup for one attempt of one session."""

    def __init__(self, look: Look, token: str) -> None:
        self.id = ""
        self.look, self.token, self.hub = look, token, look.hub(token)

    async def begin(self) -> Self:
        """Begin an attempt."""
        answer = await self.hub.post("/hub/connection_attempts", json={"token": self.token})
        assert answer.status_code == 201
        self.id = answer.json()["id"]
        return self

    async def open(self, integration: str = "salesforce_profile", **changes: str) -> httpx2.Response:
        """Open the popup."""
        query = {"redirect_uri": CALLBACK, "token": self.token, "connection_attempt_id": self.id, **changes}
        return await self.look.browser.get(f"/connect/oauth2/{integration}", params=query)

    async def decide(self, decision: str, departure: httpx2.Response | None = None) -> str:
        """Decide on the consent page; return where it sends the popup."""
        departure = departure or await self.open(my_domain="tailspin")
        assert departure.status_code == 302
        consent = await self.look.provider.get(departure.headers["location"])
        assert consent.status_code == 200
        assert "Approve" in consent.text
        assert "Deny" in consent.text
        query = parse_qs(urlsplit(departure.headers["location"]).query)
        form = {"redirect_uri": query["redirect_uri"][0], "state": query["state"][0], "decision": decision}
        answer = await self.look.provider.post("/authorize", data=form)
        assert answer.status_code == 303
        return str(answer.headers["location"])

    async def finish(self, decision: str) -> httpx2.Response:
        """Decide, and go back."""
        back = await self.decide(decision)
        return await self.look.browser.get(back)

    async def poll(self) -> Any:
        """Ask as the Hub does."""
        return (await self.hub.get(f"/hub/connection_attempts/{self.id}")).json()


@pytest.fixture
async def popup(look: Look) -> Popup:
    return await Popup(look, (await look.mint())["token"]).begin()


async def latest(look: Look, token: str) -> Any:
    answer = await look.api.post("/connect_sessions/authenticate", json={"token": token})
    return answer.json()["latest_connection_attempt"]


async def test_approve_links(look: Look, popup: Popup) -> None:
    assert (await popup.poll())["status"] == "pending"
    assert (await latest(look, popup.token))["status"] == "pending"
    end = await popup.finish("approve")
    assert end.status_code == 302
    assert end.headers["location"] == CALLBACK + "?status=authenticated"
    assert "close this window" in (await look.browser.get(end.headers["location"])).text
    polled = await popup.poll()
    assert (polled["status"], polled["error"]) == ("authenticated", None)
    account = (await look.api.get(f"/accounts/{polled['account']['id']}")).json()
    assert (account["provider"], account["origin_owner_id"]) == ("salesforce", "org_1")
    assert account["setup_information"] == {"my_domain": "tailspin"}
    told = await latest(look, popup.token)
    assert set(told) == {
        "id", "created_at", "updated_at", "status", "account_secure_id", "oauth_error_code",
        "oauth_error_description",
    }  # fmt: skip
    assert (told["id"], told["account_secure_id"]) == (popup.id, account["id"])


async def test_deny_links_nothing(look: Look, popup: Popup) -> None:
    end = await popup.finish("deny")
    assert end.headers["location"] == CALLBACK + "?status=error"
    assert await popup.poll() == {
        "status": "error",
        "account": None,
        "error": {"code": "access_denied", "description": "The user denied access"},
    }
    assert (await latest(look, popup.token))["oauth_error_code"] == "access_denied"
    assert (await look.api.get("/accounts")).json() == []


async def test_an_answer_counts_once(look: Look, popup: Popup) -> None:
    back = await popup.decide("approve")
    assert (await look.browser.get(back)).status_code == 302
    assert (await look.browser.get(back)).status_code == 400
    assert len((await look.api.get("/accounts")).json()) == 1


async def test_states_and_codes_cannot_be_made_up(look: Look, popup: Popup) -> None:
    callback = "/connect/oauth2/salesforce/callback"
    assert (await look.browser.get(callback, params={"state": "x", "code": "y"})).status_code == 400
    assert (await look.browser.get(callback)).status_code == 400
    state = parse_qs(urlsplit((await popup.open()).headers["location"]).query)["state"][0]
    await look.browser.get(callback, params={"state": state, "code": "made-up"})
    assert (await popup.poll())["error"]["code"] == "invalid_grant"


async def test_an_answer_for_another_provider_is_refused(look: Look, popup: Popup) -> None:
    back = await popup.decide("approve")
    assert (await look.browser.get(back.replace("/salesforce/", "/workday/"))).status_code == 400
    assert (await look.browser.get(back)).status_code == 400, "the state is used up"
    assert (await look.api.get("/accounts")).json() == []


async def test_cancel_is_final(look: Look, popup: Popup) -> None:
    back = await popup.decide("approve")
    for _ in range(2):
        assert (await popup.hub.delete(f"/hub/connection_attempts/{popup.id}")).status_code == 204
    assert (await popup.poll())["status"] == "cancelled"
    assert (await look.browser.get(back)).status_code == 400
    assert (await popup.open()).status_code == 400
    assert (await look.api.get("/accounts")).json() == []


async def test_success_cannot_be_cancelled(popup: Popup) -> None:
    await popup.finish("approve")
    await popup.hub.delete(f"/hub/connection_attempts/{popup.id}")
    assert (await popup.poll())["status"] == "authenticated"


async def test_attempts_expire(look: Look, popup: Popup) -> None:
    back = await popup.decide("approve")
    look.clock.forward(300)
    assert (await popup.poll())["status"] == "expired"
    assert (await look.browser.get(back)).status_code == 400
    assert (await look.api.get("/accounts")).json() == []


async def test_a_session_that_ends_takes_its_attempts_along(look: Look) -> None:
    popup = await Popup(look, (await look.mint(expires_in=60))["token"]).begin()
    back = await popup.decide("approve")
    look.clock.forward(60)
    assert (await popup.poll())["statusCode"] == 401
    assert (await look.browser.get(back)).status_code == 400
    assert (await look.api.get("/accounts")).json() == []


async def test_attempts_belong_to_their_session(look: Look, popup: Popup) -> None:
    other = await Popup(look, (await look.mint())["token"]).begin()
    for method in ("GET", "DELETE"):
        answer = await other.hub.request(method, f"/hub/connection_attempts/{popup.id}")
        assert answer.status_code == 404
    assert (await other.open(connection_attempt_id=popup.id)).status_code == 404
    answer = await other.hub.post("/hub/connection_attempts", json={"token": popup.token})
    assert answer.status_code == 401
    assert (await popup.poll())["status"] == "pending"


async def test_the_popup_is_checked_before_it_leaves(popup: Popup) -> None:
    for changes in ({"token": "x"}, {"redirect_uri": "https://evil.example/embedded/accounts/callback"}):
        assert (await popup.open(**changes)).status_code in (400, 401)
    assert (await popup.open("bamboohr_profile")).status_code == 400
    assert (await popup.open("unknown")).status_code == 404


async def test_edit_keeps_the_id_and_what_was_known(look: Look, popup: Popup) -> None:
    await popup.finish("approve")
    account = (await popup.poll())["account"]["id"]
    await look.switch.patch(f"/_sandbox/accounts/{account}", json={"status": "error"})
    again = await Popup(look, (await look.mint(account_id=account))["token"]).begin()
    await look.browser.get(await again.decide("approve", await again.open()))
    assert (await again.poll())["account"]["id"] == account
    kept = look.project.accounts.get(account)
    assert (kept.status, kept.setup_information) == ("active", {"my_domain": "tailspin"})
    assert len((await look.api.get("/accounts")).json()) == 1


async def test_an_account_deleted_meanwhile_fails_the_attempt(look: Look, popup: Popup) -> None:
    await popup.finish("approve")
    account = (await popup.poll())["account"]["id"]
    again = await Popup(look, (await look.mint(account_id=account))["token"]).begin()
    back = await again.decide("approve")
    await look.api.delete(f"/accounts/{account}")
    await look.browser.get(back)
    assert (await again.poll())["status"] == "error"


async def test_the_provider_sends_nobody_elsewhere(look: Look) -> None:
    for redirect in ("https://evil.example/", "http://stackone.test.evil.example/connect/oauth2/x", ""):
        answer = await look.provider.get("/authorize", params={"redirect_uri": redirect})
        assert answer.status_code == 400
        answer = await look.provider.post("/authorize", data={"redirect_uri": redirect, "decision": "approve"})
        assert answer.status_code == 400


async def test_the_consent_page_escapes_what_it_shows(look: Look) -> None:
    query = {"redirect_uri": "http://stackone.test/connect/oauth2/x", "state": '"><script>', "client_id": "<b>"}
    page = (await look.provider.get("/authorize", params=query)).text
    assert "<script>" not in page
    assert "<b><b>" not in page
