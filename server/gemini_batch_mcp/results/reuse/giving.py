"""Batches that have answers to give: which they are, and where these lie."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from gemini_batch_mcp.results.answer_index import INDEX_NAME
from gemini_batch_mcp.results.reuse.spared_files import RawAnswers
from gemini_batch_mcp.results.table.inputs import TABLE_VERSION
from gemini_batch_mcp.results.table.summary import folder_of


@dataclass(frozen=True, slots=True)
class Answered:
    """A batch that may have answers to give: its id, and where its table is."""

    batch_id: str
    table: Path


@dataclass(frozen=True, slots=True)
class Giving:
    """A batch that has answers to give: where its index is, and the raw answers that this leads to, in order."""

    batch_id: str
    build: str
    index: Path
    sources: tuple[RawAnswers, ...]


class _File(msgspec.Struct):
    path: str
    size_bytes: int
    modified_ns: int


class _Facts(msgspec.Struct):
    build: str
    version: int = 0
    files: tuple[_File, ...] = ()


def giving(batches: Sequence[Answered]) -> Iterator[Giving]:
    """Yield those of the batches that have answers to give, which lie where their tables say. Quick."""
    decode = msgspec.json.Decoder(_Facts).decode
    for batch in batches:
        try:
            facts = decode(batch.table.read_bytes())
        except (OSError, msgspec.MsgspecError):
            continue
        index = folder_of(batch.table, facts.build) / INDEX_NAME
        sources = tuple(
            RawAnswers(batch.batch_id, str(batch.table.parent / file.path), file.size_bytes, file.modified_ns)
            for file in facts.files
        )
        if facts.version == TABLE_VERSION and index.is_file() and all(map(is_there, sources)):
            yield Giving(batch.batch_id, facts.build, index, sources)


def answers_stamp(batches: Sequence[Answered]) -> str:
    """Return a text that changes whenever one of these batches has other answers to give. Quick."""
    return " ".join(batch.build for batch in giving(batches))


def is_there(source: RawAnswers) -> bool:
    """True while raw answers lie where they were found, as they were."""
    try:
        seen = Path(source.path).stat()
    except OSError:
        return False
    return (seen.st_size, seen.st_mtime_ns) == (source.size_bytes, source.modified_ns)
