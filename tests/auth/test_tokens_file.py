"""Tokens in a file: what is in it now counts, and what can't be read lets nobody in."""

import asyncio
import logging
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agentscope.auth import Authenticator, StaticToken
from agentscope.errors import UnauthorizedError, UserError
from agentscope.runtime.settings import AuthSettings
from agentscope_adapters.auth._listed import ListedTokens, read_tokens, tokens_beside
from agentscope_adapters.auth._watched_file import LARGEST_FILE, WatchedFile
from agentscope_adapters.auth.bearer import BearerAuthenticator, open_authenticator
from auth.clock import Clock
from auth.signing import bearer
from serving import Echo, served

ALICE, BOB = "alices-token-0123", "bobs-token-01234567"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with the token of Alice."""
    file = tmp_path / "tokens"
    file.write_text(f"# who may call\n\nalice  {ALICE}\r\n")
    return file


SPOILT = ["gone", "empty", "too short", "a folder", "a pipe", "no text", "too large", "the token of another"]


def spoil(path: Path, how: str) -> None:
    """Leave something in its place that can't be used."""
    path.unlink()
    match how:
        case "empty":
            path.write_text("# none\n")
        case "too short":
            path.write_text(f"alice {ALICE}\nbob short\n")
        case "a folder":
            path.mkdir()
        case "a pipe":
            os.mkfifo(path)
        case "no text":
            path.write_bytes(b"\xff\xfe\xff" + ALICE.encode())
        case "too large":
            path.write_bytes(f"alice {ALICE}\n".encode() + b"#" * LARGEST_FILE)
        case "the token of another":
            path.write_text(f"alice {ALICE}\nmallory {BOB}\n")
        case _:
            pass


def overwrite(path: Path, content: bytes) -> None:
    """Write into the file itself, and leave its time as it was."""
    status = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def rewrite(path: Path, text: str) -> None:
    """Put another file in its place, as whoever rotates tokens should."""
    if path.is_dir():
        path.rmdir()
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


@asynccontextmanager
async def opened(path: Path, **settings: object) -> AsyncGenerator[Authenticator]:
    async with open_authenticator(
        AuthSettings.model_validate({"tokens_file": path, **settings}), path.parent
    ) as found:
        yield found


async def who(authenticator: Authenticator, token: str) -> str | None:
    """The name of who has that token; None when it is refused."""
    try:
        return str((await authenticator.authenticate(bearer(token)))["sub"])
    except UnauthorizedError:
        return None


@asynccontextmanager
async def watched(path: Path, clock: Clock) -> AsyncGenerator[WatchedFile[bytes]]:
    def parse(content: bytes) -> bytes:
        if content == b"wrong":
            raise ValueError("it is wrong")
        return content

    async with WatchedFile[bytes].open(path, parse, "server.auth.tokens_file", clock=clock) as file:
        yield file


async def test_a_new_token_counts_a_second_later_and_one_that_was_taken_out_no_more(path: Path) -> None:
    async with served(Echo, server={"auth": {"tokens_file": path}}) as server:

        async def status(token: str) -> int:
            return (await server.client.get("/sessions", headers=bearer(token))).status

        assert (await status(ALICE), await status(BOB)) == (200, 401)
        rewrite(path, f"bob {BOB}\n")
        async with asyncio.timeout(20):
            while await status(BOB) != 200:  # noqa: ASYNC110 - the file is looked at when someone calls
                await asyncio.sleep(0.05)
        assert await status(ALICE) == 401


async def test_the_path_begins_at_the_project(path: Path) -> None:
    async with open_authenticator(AuthSettings(tokens_file=Path("tokens")), path.parent) as authenticator:
        assert await who(authenticator, ALICE) == "alice"


async def test_the_tokens_of_settings_and_file_count_together(path: Path) -> None:
    async with opened(path, tokens=[f"bob {BOB}"]) as authenticator:
        assert [await who(authenticator, token) for token in (ALICE, BOB)] == ["alice", "bob"]


@pytest.mark.parametrize("wrong", SPOILT)
async def test_a_file_that_is_spoilt_refuses_its_tokens_until_it_is_mended(path: Path, wrong: str) -> None:
    clock = Clock()
    own = (StaticToken.parse(f"bob {BOB}"),)
    async with WatchedFile[tuple[StaticToken, ...]].open(path, tokens_beside(own), "key", clock=clock) as file:
        authenticator = BearerAuthenticator(ListedTokens(own, file), None)
        assert await who(authenticator, ALICE) == "alice"
        spoil(path, wrong)
        clock.pass_by(1.1)
        assert [await who(authenticator, token) for token in (ALICE, BOB)] == [None, "bob"]
        rewrite(path, f"alice {ALICE}")
        clock.pass_by(1.1)
        assert await who(authenticator, ALICE) == "alice"


async def test_a_file_that_is_spoilt_is_logged_once_and_not_for_each_request(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    clock = Clock()
    async with watched(path, clock) as file:
        overwrite(path, b"wrong")
        for _ in range(5):
            clock.pass_by(1.1)
            assert await file.content() is None
        rewrite(path, "right")
        clock.pass_by(1.1)
        assert await file.content() == b"right"
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert errors == [f"server.auth.tokens_file: {path} can't be used, all that was in it is refused: it is wrong"]


async def test_the_file_is_looked_at_once_a_second_at_most(path: Path) -> None:
    clock = Clock()
    async with watched(path, clock) as file:
        rewrite(path, "new")
        clock.pass_by(0.9)
        assert await file.content() != b"new"
        clock.pass_by(0.2)
        assert await asyncio.gather(*(file.content() for _ in range(10))) == [b"new"] * 10


async def test_the_same_tokens_again_are_no_change(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    clock = Clock()
    async with watched(path, clock) as file:
        for text in ("the same", "the same", "another"):
            rewrite(path, text)
            clock.pass_by(1.1)
            assert await file.content() == text.encode()
    assert caplog.text.count("has changed") == 2


async def test_a_look_that_is_under_way_is_over_when_the_file_closes(path: Path) -> None:
    clock = Clock()
    async with watched(path, clock) as file:
        clock.pass_by(1.1)
        reading = asyncio.create_task(file.content())
        await asyncio.sleep(0)
    assert reading.done() or await reading is not None
    assert not [task for task in asyncio.all_tasks() if "WatchedFile" in repr(task)]


async def test_a_file_that_is_as_it_was_is_not_read_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.utime(path, (1, 1))
    clock = Clock()
    async with watched(path, clock) as file:

        def never(*_: object) -> None:
            raise AssertionError

        monkeypatch.setattr(Path, "open", never)
        clock.pass_by(1.1)
        assert await file.content() is not None


async def test_another_text_of_the_same_size_and_time_is_noticed(path: Path) -> None:
    clock = Clock()
    async with watched(path, clock) as file:
        text = (await file.content() or b"").replace(b"alice", b"mally")
        overwrite(path, text)
        clock.pass_by(1.1)
        assert await file.content() == text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"", "it holds no token", id="empty"),
        pytest.param(b"\n# a comment\n  # and one more\n \n", "it holds no token", id="comments alone"),
        pytest.param(
            b"alice hunter2-hunter2-hunter2\nbob hunter2", "line 2: a token must have 16 characters", id="short"
        ),
        pytest.param(b"alice bob hunter2-hunter2", "line 1: must be TOKEN or NAME TOKEN", id="three words"),
        pytest.param(b"the-name-of-somebody ", "line 1: must be TOKEN or NAME TOKEN", id="a name without a token"),
        pytest.param(b" hunter2-hunter2-hunter2", "line 1: must be TOKEN or NAME TOKEN", id="a blank before"),
        pytest.param("hunter2-häßliches-token".encode(), "line 1: a token may hold letters, digits", id="not ASCII"),
        pytest.param(
            b"a\x01 hunter2-hunter2-hunter2", "line 1: the name before a token holds a control", id="control"
        ),
        pytest.param(b"hunter2-hunter2-\xff", "it is not UTF-8 text", id="not UTF-8"),
        pytest.param(
            b"alice hunter2-hunter2-hunter2\nbob hunter2-hunter2-hunter2",
            "alice and bob have the same",
            id="two names",
        ),
    ],
)
def test_what_is_wrong_in_a_file_is_told_without_the_token(content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        read_tokens(content)
    assert "hunter2" not in str(caught.value)


def test_a_token_may_stand_twice_and_a_byte_order_mark_before_the_first() -> None:
    assert len(read_tokens(f"\ufeffalice {ALICE}\nalice {ALICE}\n".encode())) == 1


@pytest.mark.parametrize("wrong", SPOILT)
async def test_a_file_that_can_not_be_used_is_an_error_at_start(path: Path, wrong: str) -> None:
    spoil(path, wrong)
    with pytest.raises(UserError, match=r"^server\.auth\.tokens_file: .*tokens can't be used: .+") as caught:
        async with opened(path, tokens=[f"bob {BOB}"]):
            pass
    assert BOB not in str(caught.value)
