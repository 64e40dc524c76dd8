"""Answers of earlier batches copied for a new one: they are its own from then on, whatever becomes of the others.

Each is copied as Gemini sent it, under the key of the row that gets it, with the batch that has paid for it.
"""

import json
import shutil
from collections.abc import Iterator
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any, Final

import msgspec

from gemini_batch_mcp.domain import Spared
from gemini_batch_mcp.errors import StorageError, storage_errors
from gemini_batch_mcp.results.reuse.giving import is_there
from gemini_batch_mcp.results.reuse.matching import Choice, choices
from gemini_batch_mcp.results.reuse.spared_files import SparedFiles
from gemini_batch_mcp.results.table.lines import answer_lines, mended

_ANSWERED_BY: Final = "answeredBy"
_FAILED: Final = "The answers of earlier batches could not be copied"
_BUFFER_BYTES: Final = 1 << 20
_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def are_there(spared: Spared) -> bool:
    """True while the answers to be taken lie where they were found, or have been copied."""
    files = SparedFiles(spared.directory)
    if not spared.reused_count or files.taken_path.is_file():
        return True
    try:
        return all(map(is_there, files.sources()))
    except (OSError, msgspec.MsgspecError):
        return False


def take_answers(spared: Spared) -> None:
    """Copy the answers that an order takes, and their keys, into its directory, unless they are there.

    Raises:
        StorageError: answers are gone, or files cannot be read or written.
    """
    files = SparedFiles(spared.directory)
    if not spared.reused_count or files.taken_path.is_file():
        return
    if not are_there(spared):
        raise StorageError(
            "Answers that this order was to take from an earlier batch are gone; nothing was submitted.",
            "Make the same call again: the order is then priced without them.",
        )
    draft, sources = files.taken_path.with_name(f"{files.taken_path.name}.part"), files.sources()
    with (
        storage_errors(_FAILED),
        draft.open("wb", buffering=_BUFFER_BYTES) as lines,
        files.taken_keys_path.open("wb", buffering=_BUFFER_BYTES) as keys,
    ):
        for place, chosen in groupby(choices(files), key=attrgetter("source")):
            for choice, line in _picked(Path(sources[place].path), chosen):
                lines.write(_taken(line, choice))
                keys.write(choice.key.encode() + b"\n")
    with storage_errors(_FAILED):
        draft.replace(files.taken_path)
    shutil.rmtree(files.directory / "spill", ignore_errors=True)


def _picked(path: Path, chosen: Iterator[Choice]) -> Iterator[tuple[Choice, bytes]]:
    """Yield the lines chosen of a file of answers, in its order."""
    choice = next(chosen, None)
    for number, (_, line) in enumerate(answer_lines(path), start=1):
        while choice is not None and choice.line == number:
            yield choice, line
            choice = next(chosen, None)
        if choice is None:
            return
    raise StorageError(f"{path.name} has fewer answers than its table says.", "Call get_results for its batch.")


def _taken(line: bytes, choice: Choice) -> bytes:
    """Return an answer line under another key, with the batch that has answered it."""
    try:
        members: dict[str, Any] = dict(_members(line))
    except (msgspec.MsgspecError, UnicodeDecodeError):
        # A line that was mended for the table.
        members = json.loads(mended(line))
    members["key"] = msgspec.Raw(choice.key.encode())
    members[_ANSWERED_BY] = choice.answered_by
    return msgspec.json.encode(members) + b"\n"
