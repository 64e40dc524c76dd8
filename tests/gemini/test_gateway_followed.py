"""A download that somebody reads along with: the same bytes in order, and told when it starts anew."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from gemini_batch_mcp.errors import Unavailable
from support.gateways import QUICK, Body, Script, answer, open_gateway

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024


class Reader:
    """Keeps what it was given since the last beginning, and finds it in the file."""

    def __init__(self, *, refuses: Exception | None = None) -> None:
        self.content = b""
        self.beginnings = self.completions = 0
        self.moves: list[tuple[bool, bool]] = []
        self._refuses = refuses

    def begin(self, path: Path, /) -> None:
        self.beginnings += 1
        self.content = b""
        self._path = path

    def write(self, piece: bytes | memoryview, /) -> object:
        if self._refuses is not None:
            raise self._refuses
        self.content += piece
        assert self._path.read_bytes() == self.content
        return None

    def complete(self) -> None:
        self.completions += 1

    @contextmanager
    def moving(self, destination: Path, /) -> Iterator[None]:
        before = self._path.exists(), destination.exists()
        yield
        assert (self._path.exists(), destination.exists()) == (False, True)
        self.moves.append(before)


def body(*parts: bytes, length: int, failure: Exception | None = None) -> httpx2.Response:
    return httpx2.Response(200, headers={"content-length": str(length)}, stream=Body(*parts, failure=failure))


async def test_a_follower_gets_every_byte_in_order(tmp_path: Path) -> None:
    content = bytes(range(256)) * 8 * 1024
    halves = (content[:MIB], content[MIB:])
    reader = Reader()
    gateway = open_gateway(tmp_path, Script(lambda _: body(*halves, length=len(content))))
    await gateway.download("files/abc", tmp_path / "out", follower=reader)

    assert reader.content == (tmp_path / "out").read_bytes() == content
    assert reader.beginnings == 1
    assert reader.completions == 1
    assert reader.moves == [(True, False)]


async def test_a_follower_is_told_when_the_file_is_sent_from_its_start_again(tmp_path: Path) -> None:
    cut = httpx2.ReadError("cut")
    whole = b"b" * (2 * MIB)
    gateway = open_gateway(
        tmp_path,
        Script(
            lambda _: body(b"a" * MIB, length=2 * MIB, failure=cut),
            *[answer({}, 500)] * (QUICK.attempts - 1),
            lambda _: body(whole, length=len(whole)),
        ),
    )
    reader = Reader()
    await gateway.download("files/abc", tmp_path / "out", follower=reader)

    assert (reader.beginnings, reader.completions) == (2, 1)
    assert reader.content == whole


async def test_what_a_follower_raises_ends_the_download(tmp_path: Path) -> None:
    reader = Reader(refuses=RuntimeError("no more"))
    gateway = open_gateway(tmp_path, Script(lambda _: body(b"x", length=1)))
    with pytest.raises(RuntimeError, match="no more"):
        await gateway.download("files/abc", tmp_path / "out", follower=reader)

    assert list(tmp_path.glob("out*")) == []
    assert (reader.completions, reader.moves) == (0, [])


async def test_a_follower_of_a_failed_download_gets_nothing(tmp_path: Path) -> None:
    reader = Reader()
    gateway = open_gateway(tmp_path, Script(*[answer({}, 500)] * QUICK.attempts))
    with pytest.raises(Unavailable):
        await gateway.download("files/abc", tmp_path / "out", follower=reader)

    assert reader.content == b""
