"""Whose address counts: the peer's, unless a trusted proxy says for whom it asks."""

from typing import Any

import httpx2
import pytest

from tests.edge.conftest import Edge, open_edge

pytestmark = pytest.mark.anyio

LIMITS = {"unauthenticated_per_address": "3/hour"}
REFUSED = {"authorization": "Bearer sk_AAAAAAAAAAAA_notakey"}


async def refused(edge: Edge, times: int, *forwarded: str) -> list[int]:
    """Send a bad credential so many times, each time for the next of the forwarded addresses."""
    seen = []
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{edge.port}") as client:
        for number in range(times):
            headers = dict(REFUSED)
            if forwarded:
                headers["x-forwarded-for"] = forwarded[number % len(forwarded)]
            seen.append((await client.get("/v1/accounts/x", headers=headers)).status_code)
    return seen


@pytest.mark.parametrize("http", [{}, {"trusted_proxies": ["192.0.2.0/24"]}])
async def test_a_spoofed_header_from_an_untrusted_peer_changes_nothing(database_url: str, http: dict[str, Any]) -> None:
    async with open_edge(database_url, limits=LIMITS, http=http) as edge:
        spoofed = [f"198.51.100.{number}" for number in range(9)]
        assert await refused(edge, 6, *spoofed) == [401, 401, 401, 429, 429, 429]


async def test_every_header_that_proxies_use_is_ignored_from_an_untrusted_peer(database_url: str) -> None:
    async with open_edge(database_url, limits=LIMITS) as edge:
        assert await refused(edge, 3) == [401] * 3
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{edge.port}") as client:
            for name in ("x-forwarded-for", "forwarded", "x-real-ip", "true-client-ip", "cf-connecting-ip"):
                value = "for=198.51.100.7" if name == "forwarded" else "198.51.100.7"
                answer = await client.get("/v1/accounts/x", headers={**REFUSED, name: value})
                assert answer.status_code == 429, name


@pytest.mark.parametrize("proxies", [["127.0.0.1"], ["127.0.0.0/8"], ["127.0.0.9/8"]])
async def test_a_trusted_proxy_tells_for_whom_it_asks(database_url: str, proxies: list[str]) -> None:
    async with open_edge(database_url, limits=LIMITS, http={"trusted_proxies": proxies}) as edge:
        assert await refused(edge, 4, "198.51.100.7") == [401, 401, 401, 429]
        assert await refused(edge, 1, "198.51.100.8") == [401]
        # What the client itself put in front of the list is no more than its word.
        assert await refused(edge, 2, "203.0.113.1, 198.51.100.7", "203.0.113.2, 198.51.100.7") == [429, 429]


async def test_an_ipv6_customer_is_one_address_whatever_host_part_it_picks(database_url: str) -> None:
    async with open_edge(database_url, limits=LIMITS, http={"trusted_proxies": ["127.0.0.1"]}) as edge:
        hosts = [f"[2001:db8:1:2::{number:x}]" for number in range(1, 9)]
        assert await refused(edge, 5, *hosts) == [401, 401, 401, 429, 429]
        assert await refused(edge, 1, "[2001:db8:1:3::1]") == [401]
        assert await refused(edge, 4, "::ffff:198.51.100.9", "198.51.100.9") == [401, 401, 401, 429]


async def test_an_address_that_is_none_is_counted_like_any_other(database_url: str) -> None:
    async with open_edge(database_url, limits=LIMITS, http={"trusted_proxies": ["127.0.0.1"]}) as edge:
        assert await refused(edge, 5, "x" * 5000) == [401, 401, 401, 429, 429]


@pytest.mark.parametrize(("proxies", "status"), [(["127.0.0.1"], 200), (["192.0.2.0/24"], 401), ([], 401)])
async def test_a_token_in_a_proxys_header_counts_by_the_peer_and_not_by_whom_it_forwards(
    database_url: str, proxies: list[str], status: int
) -> None:
    header = {"header": "x-goog-iap-jwt-assertion"}
    async with open_edge(database_url, trusting=header, http={"trusted_proxies": proxies}) as edge:
        ours = {
            "x-goog-iap-jwt-assertion": edge.issuer.token(),
            "x-forwarded-for": "127.0.0.1" if status != 200 else "198.51.100.7",
            "x-connect-broker": "1",
            "sec-fetch-site": "same-origin",
        }
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{edge.port}") as client:
            answer = await client.get("/v1/linked-accounts", headers=ours)
            assert answer.status_code == status, answer.text
