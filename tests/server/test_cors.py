"""``server.cors_origins``: whose pages may call, and what a browser is told of the answers."""

import pytest

from serving import Echo, invocation, served

_PAGE = "https://page.example.com"
_TOKEN = "alices-token-0123"
_PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}


async def test_a_browser_that_asks_first_needs_no_token_and_is_told_what_it_may_send() -> None:
    server = {"cors_origins": [_PAGE], "auth": {"tokens": [f"alice {_TOKEN}"]}}
    async with served(Echo, server=server) as running:
        async with running.client.options("/invoke", headers={"Origin": _PAGE, **_PREFLIGHT}) as told:
            assert (told.status, told.headers["Access-Control-Allow-Origin"]) == (204, _PAGE)
            assert "POST" in told.headers["Access-Control-Allow-Methods"]
            allowed = {name.strip().lower() for name in told.headers["Access-Control-Allow-Headers"].split(",")}
            assert {"authorization", "content-type", "idempotency-key", "last-event-id"} <= allowed
        # One that does not ask whether it may send another gets what everyone gets.
        async with running.client.options("/invoke", headers={"Origin": _PAGE}) as told:
            assert told.status == 401


async def test_a_page_may_read_what_names_its_answer_and_why_it_was_refused() -> None:
    async with served(Echo, server={"cors_origins": [_PAGE]}) as running:
        for body, status in ((invocation(), 200), ({}, 400)):
            async with await running.post(body, headers={"Origin": _PAGE}) as told:
                assert (told.status, told.headers["Access-Control-Allow-Origin"]) == (status, _PAGE)
                assert "X-Invocation-Id" in told.headers["Access-Control-Expose-Headers"]


async def test_a_page_of_another_origin_may_not_call_and_no_cache_hands_it_the_answer_to_one_that_may() -> None:
    async with served(Echo, server={"cors_origins": [_PAGE]}) as running:
        other = {"Origin": "https://page.example.com.evil.example"}
        async with running.client.options("/invoke", headers={**other, **_PREFLIGHT}) as told:
            assert told.status == 405
            assert "Access-Control-Allow-Origin" not in told.headers
        async with running.client.get("/sessions", headers=other) as told:
            assert "Access-Control-Allow-Origin" not in told.headers
            assert "Origin" in told.headers["Vary"]


@pytest.mark.parametrize("page", [_PAGE, "null"])
async def test_with_a_star_every_page_may_call(page: str) -> None:
    async with served(Echo, server={"cors_origins": ["*"]}) as running:
        async with await running.post(invocation(), headers={"Origin": page}) as told:
            assert told.headers["Access-Control-Allow-Origin"] == page
        # What is no page is told nothing.
        async with await running.post(invocation()) as told:
            assert "Access-Control-Allow-Origin" not in told.headers
