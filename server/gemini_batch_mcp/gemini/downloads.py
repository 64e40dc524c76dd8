"""Fetching answers: whole under their name, or not there at all; and who may follow while they arrive."""

import os
import secrets
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from gemini_batch_mcp.gemini.http import Exchange
from gemini_batch_mcp.gemini.retry import repeat
from gemini_batch_mcp.gemini.session import Session
from gemini_batch_mcp.gemini.transfers import Download, Incoming, Progress, download_errors, put_in_place
from gemini_batch_mcp.redaction import Secrets
from gemini_batch_mcp.threads import in_thread


class Follower(Protocol):
    """Somebody who reads a file while it arrives. What is raised in these methods ends the download."""

    def begin(self, path: Path, /) -> None:
        """Expect a file at `path`, from its start. Said once more, what came before is void, there, too."""

    def write(self, piece: bytes | memoryview, /) -> object:
        """Take the next bytes; they can be read from the file, too. The object is not to be kept."""

    def complete(self) -> None:
        """All bytes have come. What is left is to make them durable, and that may still fail."""

    def moving(self, destination: Path, /) -> AbstractContextManager[None]:
        """Keep off the file while it is moved to `destination`. May be entered in another thread."""


#: Writes a body to what it is given, as one exchange.
Bring = Callable[[Incoming, Exchange], Awaitable[None]]


async def receive(
    session: Session[Any], name: str, destination: Path, report: Progress, follower: Follower | None, bring: Bring
) -> Download:
    """Have `bring` fetch what goes by a checked `name`, again after a failure; see `Gateway.download`."""
    part = destination.with_name(f"{destination.name}.part-{secrets.token_hex(4)}")

    async def fetch(_: int) -> Download:
        if follower is not None:
            follower.begin(part)
        return await _fetch(session, name, part, report, follower, bring)

    def place() -> None:
        with download_errors(destination.parent), nullcontext() if follower is None else follower.moving(destination):
            put_in_place(part, destination)

    try:
        done = await repeat(fetch, session.policy)
        await in_thread(place)
    finally:
        part.unlink(missing_ok=True)
    return done


async def _fetch(
    session: Session[Any], name: str, part: Path, report: Progress, follower: Follower | None, bring: Bring
) -> Download:
    """Write the body to `part` and to the disk, from the start."""
    with _new_file(part) as file:
        secrets = session.secrets
        incoming = (
            Incoming(file, part.parent, report, secrets)
            if follower is None
            else _Followed(file, part, report, secrets, follower)
        )
        async with session.effect(
            "download", f"send {name}", is_ours=lambda error: error is incoming.refusal
        ) as current:
            incoming.follow(current)
            await bring(incoming, current)
            done = incoming.finish()
        if follower is not None:
            follower.complete()
        with download_errors(part.parent):
            file.flush()
            await in_thread(os.fsync, file.fileno())
    return done


class _Followed(Incoming):
    """Hands every piece on once it can be read from the file."""

    def __init__(self, file: BinaryIO, part: Path, report: Progress, secrets: Secrets, follower: Follower) -> None:
        super().__init__(file, part.parent, report, secrets)
        self._follower = follower

    def _take(self, piece: memoryview) -> None:
        super()._take(piece)
        with download_errors(self._directory):
            self._file.flush()
        self._follower.write(piece)


@contextmanager
def _new_file(part: Path) -> Iterator[BinaryIO]:
    with download_errors(part.parent):
        file = part.open("wb")
    try:
        yield file
    finally:
        # Closing writes what is still buffered, so on a full disk it fails once more.
        with download_errors(part.parent):
            file.close()
