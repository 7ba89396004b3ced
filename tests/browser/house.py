"""The demo's externals as a test turns them: accounts made elsewhere, faults, what was received."""

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from typing import Any, Self
from urllib.parse import urlsplit

import httpx2

from sandbox.serving import reserved
from tests.e2e.demo_process import Demo

_PATIENCE_SECONDS = 30.0
_PAUSE_SECONDS = 0.05
_PAUSE = threading.Event()


StartDemo = Callable[..., AbstractContextManager[Demo]]


class House:
    """Everything around the page: the broker, and the externals that `broker-demo` starts with it."""

    def __init__(self, start_demo: StartDemo) -> None:
        self._start_demo = start_demo
        self._running = ExitStack()
        self._http = httpx2.Client(timeout=_PATIENCE_SECONDS, trust_env=False)
        self._reserved = ExitStack()
        self.ready: Mapping[str, Any] = {}

    def __enter__(self) -> Self:
        """Start everything on free ports."""
        self.ready = self._running.enter_context(self._start_demo()).ready
        self.page_url = str(self.ready["idp"])
        self.broker_url = str(self.ready["broker"])
        self.stackone_url = str(self.ready["stackone"])
        self.provider_url = str(self.ready["provider"])
        return self

    def __exit__(self, *_: object) -> None:
        """Stop everything."""
        self._running.close()
        self._reserved.close()
        self._http.close()

    def go_down(self) -> None:
        """Stop everything, as a machine does that is switched off; nobody else is given its ports meanwhile."""
        self._running.close()
        for url in self._urls.values():
            self._reserved.enter_context(reserved(urlsplit(url).port or 0))

    def come_back(self) -> None:
        """Start everything where it was; the identity provider signs with new keys."""
        same_ports = [f"--{option}={urlsplit(url).port}" for option, url in self._urls.items()]
        self.ready = self._running.enter_context(self._start_demo(*same_ports)).ready
        self._reserved.close()

    @property
    def _urls(self) -> Mapping[str, str]:
        return {
            "port": self.broker_url,
            "sandbox-port": self.stackone_url,
            "page-port": self.page_url,
            "provider-port": self.provider_url,
        }

    @property
    def origins(self) -> frozenset[str]:
        """Return every origin that a page may talk to."""
        return frozenset({self.page_url, self.broker_url, self.stackone_url, self.provider_url})

    def switch(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Turn one of the emulator's switches."""
        answer = self._http.request(
            method,
            f"{self.stackone_url}/_sandbox{path}",
            json=body,
            headers={"x-sandbox-key": self.ready["sandbox_key"]},
        )
        assert answer.is_success, answer.text
        return answer.json()

    def empty(self) -> None:
        """End all sessions and unlink everything at StackOne, and wait until the broker has heard of it."""
        self.switch("DELETE", "/faults")
        self.switch("POST", "/webhooks", {"mode": "deliver"})
        self._end_sessions()
        for account in self.accounts():
            self.switch("DELETE", f"/accounts/{account['id']}")
        self.switch("POST", "/deliveries/settle")
        # What a test unlinked while its webhooks were dropped has no second witness yet: a complete listing is one. It
        # has to begin after the unlinking; what runs already may have listed the account before.
        self.until(self._begin_sync)
        for user in ("alice", "bob"):
            self.until(lambda user=user: not self.listed(user))  # type: ignore[misc]
        self.switch("POST", "/reset")

    def _begin_sync(self) -> bool:
        service = {"authorization": f"Bearer {self.ready['service_key']}"}
        answer = self._http.post(f"{self.broker_url}/v1/sync", headers=service)
        assert answer.status_code == 202, answer.text
        return bool(answer.json()["started"])

    def _end_sessions(self) -> None:
        """End what an earlier test left open: what is linked next would fit its session as well as the new one."""
        service = {"authorization": f"Bearer {self.ready['service_key']}"}
        for owner_id in {user["owner_id"] for user in self.ready["users"].values()}:
            path = f"{self.broker_url}/v1/owners/{owner_id}/connect-sessions"
            for session in self._http.get(f"{path}?live=true&limit=200", headers=service).json()["data"]:
                assert self._http.delete(f"{path}/{session['id']}", headers=service).is_success

    def accounts(self) -> list[dict[str, Any]]:
        """Return what is linked at StackOne."""
        return list(self.switch("GET", "/accounts"))

    def link(self, user: str = "alice", provider: str = "bamboohr", **fields: Any) -> str:
        """Link an account as if made elsewhere, wait until the broker knows it, and return its id."""
        owner = {"org_acme": "Acme Inc", "org_globex": "Globex Corp"}
        owner_id = self.ready["users"][user]["owner_id"]
        account = self.switch(
            "POST",
            "/accounts",
            {
                "provider": provider,
                "origin_owner_id": owner_id,
                "origin_owner_name": owner[owner_id],
                "origin_username": f"{user}@example.com",
                **fields,
            },
        )
        self.until(lambda: account["id"] in self.listed(user))
        return str(account["id"])

    def listed(self, user: str) -> list[str]:
        """Return the ids of the accounts that the broker shows to a user."""
        answer = self._http.get(f"{self.broker_url}/v1/linked-accounts", headers=self._as_user(user))
        assert answer.is_success, answer.text
        return [account["account_id"] for account in answer.json()["data"]]

    def fault(self, method: str, path: str, **effect: Any) -> None:
        """Have the next matching call to StackOne go wrong; `times=None` lasts until the test ends."""
        self.switch("POST", "/faults", {"method": method, "path": path, **effect})

    def behave(self) -> None:
        """End every fault."""
        self.switch("DELETE", "/faults")

    def revoke(self, token: str) -> None:
        """End a session at StackOne, which is also what its expiry looks like from outside."""
        assert self.switch("POST", "/sessions/revoke", {"token": token})["revoked"]

    def received(self, method: str, path: str) -> list[dict[str, Any]]:
        """Return what StackOne received."""
        return list(self.switch("GET", f"/requests?method={method}&path={path}"))

    def auth_link(self, owner_id: str, provider: str) -> dict[str, Any]:
        """Have the customer's backend make a link to send by e-mail."""
        answer = self._http.post(
            f"{self.broker_url}/v1/owners/{owner_id}/auth-links",
            json={"provider": provider},
            headers=self._as_service(),
        )
        assert answer.status_code == 201, answer.text
        return dict(answer.json())

    def invite(self, user: str, **fields: Any) -> str:
        """Have the customer's backend invite a user's owner, and return what its link says behind the page."""
        owner_id = self.ready["users"][user]["owner_id"]
        answer = self._http.post(
            f"{self.broker_url}/v1/owners/{owner_id}/invitations", json=fields, headers=self._as_service()
        )
        assert answer.status_code == 201, answer.text
        return str(answer.json()["url"]).removeprefix(self.page_url)

    def end_invitations(self, user: str) -> None:
        """Take back every invitation of a user's owner."""
        path = f"{self.broker_url}/v1/owners/{self.ready['users'][user]['owner_id']}/invitations"
        for invitation in self._http.get(f"{path}?live=true", headers=self._as_service()).json()["data"]:
            assert self._http.delete(f"{path}/{invitation['id']}", headers=self._as_service()).is_success

    def session_status(self, owner_id: str, session_id: str) -> dict[str, Any]:
        """Ask the broker, as a backend, how a session stands."""
        answer = self._http.get(
            f"{self.broker_url}/v1/owners/{owner_id}/connect-sessions/{session_id}", headers=self._as_service()
        )
        assert answer.is_success, answer.text
        return dict(answer.json())

    @staticmethod
    def until(is_so: Callable[[], Any]) -> None:
        """Ask until it is so; the pages under test go on by themselves meanwhile."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not is_so():
            assert time.monotonic() < deadline, f"not within {_PATIENCE_SECONDS} s"
            _PAUSE.wait(_PAUSE_SECONDS)

    def _as_user(self, user: str) -> dict[str, str]:
        return {"authorization": f"Bearer {self.ready['users'][user]['token']}"}

    def _as_service(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.ready['service_key']}"}
