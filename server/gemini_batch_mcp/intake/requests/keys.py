"""The keys of a request file: written down in order, and looked through for repeats, ten million of them if need be.

While each key comes behind all before it, shorter ones first, as numbers do, none can be a repeat, and nothing has to
be remembered. From the first one on that does not, repeats are found by hashes, 4 bytes a key, and then confirmed on
the written keys: what is reported is exact.
"""

from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from operator import lt
from pathlib import Path
from typing import Final

import msgspec

from gemini_batch_mcp.errors import Problem, storage_errors
from gemini_batch_mcp.intake.opened import buffered
from gemini_batch_mcp.intake.validator.corrections import shown

_BUCKETS: Final = 1 << 12
_BUCKET_MASK: Final = _BUCKETS - 1
#: Repeated keys that are confirmed one by one; of more, only the first are, and the rest are counted by hash.
_MAX_CONFIRMED: Final = 100_000
_WRITE_BUFFER_BYTES: Final = 1 << 20
_KEYS_AT_ONCE: Final = 1 << 12
_FAILED: Final = "The list of keys could not be written"
_ENCODER: Final = msgspec.json.Encoder()


class Keys:
    """Keys of lines that follow each other, as text and as the JSON strings of the keys file."""

    def __init__(self, keys: Sequence[str]) -> None:
        self.keys = keys
        self.written = _ENCODER.encode_lines(keys)

    def starts(self, before: bytes) -> list[bytes]:
        """Return each key as it would stand in a line after `before`."""
        return [before + written for written in self.written.split(b"\n")]


@dataclass(frozen=True, slots=True)
class Repeats:
    """Lines whose key came before: how many, and the first of them described."""

    count: int = 0
    problems: tuple[Problem, ...] = ()


class KeyLog:
    """Collects the keys of one file. Use as a context: the keys file appears only when `keep` was called."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0
        self._draft = path.with_name(f"{path.name}.part")
        #: Length and text of the last key, while all of them come in order.
        self._last: tuple[int, str] | None = (0, "")
        self._buckets: list[array[int]] = []
        self._add: list[Callable[[int], None]] = []
        #: For each line without a key, how many keys stand before it.
        self._skipped = array("Q")
        with storage_errors(_FAILED):
            self._file = self._draft.open("wb", buffering=_WRITE_BUFFER_BYTES)

    def __enter__(self) -> "KeyLog":
        return self

    def __exit__(self, *_: object) -> None:
        self.discard()

    def extend(self, keys: Keys) -> None:
        """Add the keys of the next lines, in order."""
        if self._last is not None:
            order = [self._last, *zip(map(len, keys.keys), keys.keys, strict=True)]
            self._last = order[-1] if all(map(lt, order, order[1:])) else None
            if self._last is None:
                self._remember_written()
        with storage_errors(_FAILED):
            self._file.write(keys.written)
        self.count += len(keys.keys)
        if self._last is None:
            self._remember(keys.keys)

    def skip_line(self) -> None:
        """Say that the next line has no key: it is blank, or has a problem."""
        self._skipped.append(self.count)

    def skip_lines(self, count: int) -> None:
        """Say that so many lines are passed over."""
        self._skipped.extend([self.count] * count)

    def repeats(self, limit: int, unit: str = "line") -> Repeats:
        """Find the keys that came more than once, and describe up to `limit` of the lines that repeat them."""
        by_hash = 0
        suspects: set[tuple[int, int]] = set()
        for number, bucket in enumerate(self._buckets):
            distinct = set(bucket)
            by_hash += len(bucket) - len(distinct)
            if len(bucket) != len(distinct) and len(suspects) < _MAX_CONFIRMED:
                suspects.update((number, rest) for rest in _repeated(bucket))
        if not suspects:
            return Repeats()
        confirmed = self._confirm(suspects, limit, unit)
        return confirmed if len(suspects) < _MAX_CONFIRMED else Repeats(by_hash, confirmed.problems)

    def keep(self) -> None:
        """Put the keys file in its place.

        Raises:
            StorageError: it could not be written.
        """
        with storage_errors(_FAILED):
            self._file.close()
            self._draft.replace(self.path)

    def discard(self) -> None:
        """Close, and remove what was not kept."""
        with suppress(OSError):
            # What a full disk did not take is of no use any more.
            self._file.close()
        with suppress(OSError):
            self._draft.unlink(missing_ok=True)

    def _remember_written(self) -> None:
        """Remember the keys that came in order."""
        self._buckets = [array("I") for _ in range(_BUCKETS)]
        self._add = [bucket.append for bucket in self._buckets]
        written = self._written() if self.count else iter(())
        while keys := list(islice(written, _KEYS_AT_ONCE)):
            self._remember(keys)

    def _remember(self, keys: Sequence[str]) -> None:
        add, digests = self._add, memoryview(array("q", map(hash, keys))).cast("B")
        # Halves of the 64 bits, cut apart by slicing: half the time of shifting and masking each number.
        for bucket, rest in zip(digests.cast("H")[::4].tolist(), digests.cast("I")[1::2].tolist(), strict=True):
            add[bucket & _BUCKET_MASK](rest)

    def _confirm(self, suspects: set[tuple[int, int]], limit: int, unit: str) -> Repeats:
        first: dict[str, int] = {}
        problems: list[Problem] = []
        count = 0
        for index, key in enumerate(self._written()):
            digest = hash(key)
            if (digest & _BUCKET_MASK, digest >> 32 & 0xFFFFFFFF) not in suspects:
                continue
            if key not in first:
                first[key] = index
                continue
            count += 1
            if len(problems) < limit:
                message = f"`key` is the same as that of {unit} {self._line(first[key])}."
                problems.append(Problem(self._line(index), shown(key), message, f"Give each {unit} a unique key."))
        return Repeats(count, tuple(problems))

    def _written(self) -> Iterator[str]:
        with storage_errors(_FAILED):
            self._file.flush()
        with buffered(self._draft) as file:
            yield from map(msgspec.json.Decoder(str).decode, file)

    def _line(self, index: int) -> int:
        """Return the number of the line that holds the key of that index."""
        return index + 1 + bisect_right(self._skipped, index)


def _repeated(bucket: "array[int]") -> set[int]:
    seen: set[int] = set()
    repeated = set()
    for value in bucket:
        if value in seen:
            repeated.add(value)
        seen.add(value)
    return repeated
