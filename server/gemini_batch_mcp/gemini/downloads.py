"""Fetching a result file: whole under its name, or not there at all."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from anyio import to_thread

from gemini_batch_mcp.gemini.retry import repeat
from gemini_batch_mcp.gemini.session import Session
from gemini_batch_mcp.gemini.transfer import Download, Incoming, Progress, put_in_place, storage_errors


class Follower(Protocol):
    """Somebody who reads a file while it arrives. What is raised in these methods ends the download."""

    def write(self, chunk: bytes, /) -> object:
        """Take the next bytes; they are on their way to the disk, too."""

    def begin_again(self) -> None:
        """Forget everything: the file is being sent again from its start."""


async def download(
    session: Session, name: str, destination: Path, report: Progress, follower: Follower | None = None
) -> Download:
    """Download and check; see `Gateway.download`. `name` has been checked."""
    part = destination.with_name(f"{destination.name}.part-{secrets.token_hex(4)}")

    async def fetch(attempt: int) -> Download:
        if follower is not None and attempt > 1:
            follower.begin_again()
        return await _fetch(session, name, part, report, follower)

    try:
        done = await repeat(fetch, session.policy)
        with storage_errors(destination.parent):
            await to_thread.run_sync(put_in_place, part, destination)
    finally:
        part.unlink(missing_ok=True)
    return done


async def _fetch(session: Session, name: str, part: Path, report: Progress, follower: Follower | None) -> Download:
    """Write the body to `part` and to the disk, from the start."""
    connection = await session.connection()
    with _new_file(part) as file:
        incoming = Incoming(file, part.parent, report) if follower is None else _Followed(file, part, report, follower)
        async with session.effect(
            "download", f"send {name}", is_ours=lambda error: error is incoming.refusal
        ) as current:
            incoming.follow(current)
            await connection.sdk.aio.files.download(file=name, destination=incoming)
        with storage_errors(part.parent):
            file.flush()
            await to_thread.run_sync(os.fsync, file.fileno())
    return incoming.result()


class _Followed(Incoming):
    """Hands every chunk on once it has been written."""

    def __init__(self, file: BinaryIO, part: Path, report: Progress, follower: Follower) -> None:
        super().__init__(file, part.parent, report)
        self._follower = follower

    def write(self, chunk: Any, /) -> int:
        """Append one chunk of bytes; see `Incoming.write`."""
        written = super().write(chunk)
        try:
            self._follower.write(chunk)
        except Exception as error:
            self.refusal = error
            raise
        return written


@contextmanager
def _new_file(part: Path) -> Iterator[BinaryIO]:
    with storage_errors(part.parent):
        file = part.open("wb")
    try:
        yield file
    finally:
        # Closing writes what is still buffered, so on a full disk it fails once more.
        with storage_errors(part.parent):
            file.close()
