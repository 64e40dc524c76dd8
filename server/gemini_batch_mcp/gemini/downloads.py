"""Fetching a result file: whole under its name, or not there at all."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from anyio import to_thread

from gemini_batch_mcp.gemini.retry import repeat
from gemini_batch_mcp.gemini.session import Session
from gemini_batch_mcp.gemini.transfer import Download, Incoming, Progress, put_in_place, storage_errors


async def download(session: Session, name: str, destination: Path, report: Progress) -> Download:
    """Download and check; see `Gateway.download`. `name` has been checked."""
    part = destination.with_name(f"{destination.name}.part-{secrets.token_hex(4)}")
    try:
        done = await repeat(lambda attempt: _fetch(session, name, part, report), session.policy)
        with storage_errors(destination.parent):
            await to_thread.run_sync(put_in_place, part, destination)
    finally:
        part.unlink(missing_ok=True)
    return done


async def _fetch(session: Session, name: str, part: Path, report: Progress) -> Download:
    """Write the body to `part` and to the disk, from the start."""
    connection = await session.connection()
    with _new_file(part) as file:
        incoming = Incoming(file, part.parent, report)
        async with session.effect(
            "download", f"send {name}", is_ours=lambda error: error is incoming.refusal
        ) as current:
            incoming.follow(current)
            await connection.sdk.aio.files.download(file=name, destination=incoming)
        with storage_errors(part.parent):
            file.flush()
            await to_thread.run_sync(os.fsync, file.fileno())
    return incoming.result()


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
