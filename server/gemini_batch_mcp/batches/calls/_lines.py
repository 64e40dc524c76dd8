"""The request lines of one job, read one by one, each only as it was checked."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from gemini_batch_mcp.domain import JsonObject
from gemini_batch_mcp.errors import UsageError
from gemini_batch_mcp.intake.opened import buffered
from gemini_batch_mcp.intake.requests.shards import Shard


@dataclass(frozen=True, slots=True)
class CheckedLines:
    """Where each line stands, and its SHA-256: what is read later is what was checked."""

    path: Path
    _places: tuple[tuple[int, int, bytes], ...]

    @classmethod
    def of(cls, path: Path, shard: Shard) -> Self:
        """Find the lines of a shard.

        Raises:
            UsageError: they are not those that were checked.
            PathError: they cannot be read.
        """
        whole = hashlib.sha256()
        places: list[tuple[int, int, bytes]] = []
        with buffered(path) as file:
            file.seek(shard.first_byte)
            place, end = shard.first_byte, shard.first_byte + shard.size_bytes
            while place < end and (line := file.readline(end - place)):
                whole.update(line)
                if not line.isspace():
                    places.append((place, len(line), hashlib.sha256(line).digest()))
                place += len(line)
        if len(places) != shard.count or whole.hexdigest() != shard.sha256:
            raise _changed(path)
        return cls(path, tuple(places))

    def __len__(self) -> int:
        return len(self._places)

    def request(self, row: int) -> JsonObject:
        """Return the request of a row, counted from 0.

        Raises:
            UsageError: its line is not the one that was checked.
            PathError: it cannot be read.
        """
        place, size_bytes, digest = self._places[row]
        with buffered(self.path) as file:
            file.seek(place)
            line = file.read(size_bytes)
        if hashlib.sha256(line).digest() != digest:
            raise _changed(self.path)
        request: JsonObject = json.loads(line)["request"]
        return request


def _changed(path: Path) -> UsageError:
    return UsageError(
        f"{path.name} has changed since it was checked; the rows not called yet are not sent.",
        "Submit these rows as a new order.",
    )
