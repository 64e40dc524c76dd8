"""Wrong lines that are left out of what is sent: which, why, and under which keys they stand in the result."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NoReturn

import msgspec

from gemini_batch_mcp.domain import NOT_SENT
from gemini_batch_mcp.errors import Problem, RequestProblems, storage_errors
from gemini_batch_mcp.intake.opened import buffered
from gemini_batch_mcp.intake.request_files import RequestFile, Skipped, SkippedLine
from gemini_batch_mcp.intake.requests.keys import KeyLog
from gemini_batch_mcp.intake.validator.decoders import MAX_KEY_CHARACTERS
from gemini_batch_mcp.intake.validator.validate import CheckedLine

#: Around the reason for which a row could not be rendered, as a JSON string in the middle of its line; JSON never holds
#: it.
FAULT: Final = b"\x1e"
#: google.rpc's code for a request that is wrong whenever it is sent.
_INVALID_ARGUMENT: Final = 3
_MAX_SHOWN: Final = 20
#: Problems of one line that its reason names.
_MAX_REASONS: Final = 3
_NAMED: Final = 5
_START: Final = b'{"key":'
_FAILED: Final = "The lines that were left out could not be written down"
_SCANNER: Final = json.JSONDecoder()
#: Room for a key of any characters, each escaped as a pair.
_MAX_KEY_BYTES: Final = 12 * MAX_KEY_CHARACTERS + 64


_NONE: Final[Mapping[int, Problem]] = MappingProxyType({})


class RepeatsFound(Exception):
    """Lines repeat keys of lines before them: the pass is to be made again without them, by their numbers.

    `unreadable` are rows that the reader of the table refused, and is to leave empty.
    """

    def __init__(self, repeats: Mapping[int, Problem], unreadable: Mapping[int, Problem] = _NONE) -> None:
        super().__init__(len(repeats) + len(unreadable))
        self.repeats = repeats
        self.unreadable = unreadable


@dataclass(frozen=True, slots=True)
class _Line:
    number: int
    key: str
    problems: tuple[Problem, ...]


class LeftOut:
    """What one pass leaves out. `unit` is what the source is made of; `repeats` are lines known to repeat a key.

    `unreadable` are rows that the reader of a table refused.
    """

    def __init__(
        self,
        unit: str = "line",
        repeats: Mapping[int, Problem] = _NONE,
        unreadable: Mapping[int, Problem] = _NONE,
    ) -> None:
        self.unit = unit
        self.unreadable = unreadable
        self._repeats = dict(repeats)
        self._known = self._repeats | dict(unreadable)
        self._lines: list[_Line] = []

    def begin(self) -> None:
        """Forget what was left out: the pass begins anew."""
        self._lines = []

    @property
    def count(self) -> int:
        """How many lines were left out."""
        return len(self._lines)

    @property
    def numbers(self) -> Sequence[int]:
        """The lines that were left out, by their numbers (from 1), in order."""
        return [line.number for line in self._lines]

    def has_repeats_in(self, before: int, count: int) -> bool:
        """True when one of the `count` lines that follow `before` others repeats a key."""
        return bool(self._known) and any(number in self._known for number in range(before + 1, before + count + 1))

    def takes(self, number: int, line: bytes = b"") -> bool:
        """Leave a line out that repeats a key, or that could not be rendered; False for all others."""
        problem = self._known.get(number)
        if problem is None and FAULT in line:
            problem = Problem(number, "", json.loads(line.split(FAULT, 2)[1]), "")
            self.add(number, key_at_start(line), (problem,))
        elif problem is not None:
            self.add(number, "", (problem,))
        return problem is not None

    def add(self, number: int, key: str, problems: Sequence[Problem]) -> None:
        """Leave a line out; `key` is its own, empty where it cannot be read."""
        self._lines.append(_Line(number, key, tuple(problems[:_MAX_REASONS])))

    def add_checked(self, number: int, checked: CheckedLine, line: bytes = b"") -> None:
        """Leave a line out that was found to be wrong."""
        self.add(number, checked.key or key_at_start(line), checked.problems)

    def refuse_repeats(self, keys: KeyLog) -> None:
        """End a pass.

        Raises:
            RepeatsFound: lines that are not left out repeat keys.
        """
        found = keys.repeats(1 << 62, self.unit).problems
        if found:
            raise RepeatsFound(self._repeats | {problem.line: problem for problem in found}, self.unreadable)

    def refuse_unreadable(self, rows: Mapping[int, Problem]) -> NoReturn:
        """End a pass over a table in which rows cannot be read.

        Raises:
            RepeatsFound: always; the next pass is to leave them empty.
        """
        raise RepeatsFound(self._repeats, {**self.unreadable, **rows})

    def all_wrong(self, name: str) -> RequestProblems:
        """Return the error for a source of which nothing would be left."""
        problems = [problem for line in self._lines[:_MAX_SHOWN] for problem in line.problems[:1]]
        message = f"All {self.count:,} {self.unit}s of {name} are wrong; nothing was submitted."
        if self.count == 1:
            message = f"The only {self.unit} of {name} is wrong; nothing was submitted."
        return RequestProblems(problems, self.count, message, "Correct them, then submit the order again.")

    def written(self, sent: RequestFile, directory: Path) -> RequestFile:
        """Write down what was left out beside the lines that are sent; return these with it.

        Each line keeps its key unless a line that is sent, or another one here, has it; others get one of their own.

        Raises:
            StorageError: it cannot be written.
        """
        if not self._lines:
            return sent
        path, keys_path = directory / Skipped.NAME, directory / Skipped.KEYS_NAME
        taken = self._taken(sent.keys_path)
        first: list[SkippedLine] = []
        with storage_errors(_FAILED), _draft(path).open("wb") as lines, _draft(keys_path).open("wb") as keys:
            for line in self._lines:
                key = line.key
                if not key or key in taken:
                    key = self._made_key(line.number, taken)
                taken.add(key)
                message = self._reason(line, key)
                error = {"code": _INVALID_ARGUMENT, "message": message}
                lines.write(msgspec.json.encode({"key": key, "error": error}) + b"\n")
                keys.write(msgspec.json.encode(key) + b"\n")
                if len(first) < _MAX_SHOWN:
                    first += [
                        SkippedLine(line.number, key, problem.message, problem.fix) for problem in line.problems[:1]
                    ]
        with storage_errors(_FAILED):
            _draft(keys_path).replace(keys_path)
            _draft(path).replace(path)
        skipped = Skipped(path, keys_path, self.count, tuple(first))
        return replace(sent, skipped=skipped, warnings=(self._warning(sent.count, skipped), *sent.warnings))

    def _taken(self, sent_keys: Path) -> set[str]:
        """Return the keys of lines that are sent which could be those of lines here."""
        wanted, start = {line.key for line in self._lines if line.key}, f"{self.unit}-"
        decode = msgspec.json.Decoder(str).decode
        with buffered(sent_keys) as keys:
            return {key for key in map(decode, keys) if key in wanted or key.startswith(start)}

    def _made_key(self, number: int, taken: set[str]) -> str:
        key, again = f"{self.unit}-{number}", 1
        while key in taken:
            again += 1
            key = f"{self.unit}-{number}-{again}"
        return key

    def _reason(self, line: _Line, key: str) -> str:
        told = " ".join(f"{problem.message} {problem.fix}".strip() for problem in line.problems)
        other = ""
        if key != line.key:
            why = f"its key {line.key!r} is another {self.unit}'s" if line.key else "it has no key of its own"
            other = f" It stands here as {key}: {why}."
        return f"{NOT_SENT}{self.unit} {line.number:,} is wrong: {told}{other}"

    def _warning(self, sent_count: int, skipped: Skipped) -> str:
        total = sent_count + skipped.count
        named = ", ".join(str(line.line) for line in skipped.first[:_NAMED])
        more = f" and {skipped.count - _NAMED:,} more" if skipped.count > _NAMED else ""
        plural, are, they = ("", "is", "It stands") if skipped.count == 1 else ("s", "are", "They stand")
        return (
            f"{skipped.count:,} of {total:,} {self.unit}s {are} wrong and not sent: {self.unit}{plural} {named}{more}. "
            f"{they} in the results as failed, with the reason; correct the source, then order those rows again."
        )


def leaving_out(write: Callable[[LeftOut], RequestFile], unit: str, directory: Path) -> RequestFile:
    """Write lines without the wrong ones, and write those down in `directory`.

    `write` makes one pass over the source. It is called again for as long as keys repeat, of which the first is sent,
    or rows cannot be read.

    Raises:
        RequestProblems: nothing would be left.
        as `write`.
    """
    left_out = LeftOut(unit)
    while True:
        try:
            return left_out.written(write(left_out), directory)
        except RepeatsFound as found:
            left_out = LeftOut(unit, found.repeats, found.unreadable)


def remove_skipped(directory: Path) -> None:
    """Remove what an earlier pass has left out from a directory.

    Raises:
        StorageError: it cannot be removed.
    """
    with storage_errors(_FAILED):
        for name in (Skipped.NAME, Skipped.KEYS_NAME):
            if (directory / name).exists():
                (directory / name).unlink()


def key_at_start(line: bytes) -> str:
    """Return the key that a line begins with, whatever follows; empty where there is none that can be used."""
    start = line[:_MAX_KEY_BYTES].lstrip()
    if not start.replace(b" ", b"", 2).startswith(_START):
        return ""
    text = start.decode("utf-8", "replace")
    try:
        key: Any = _SCANNER.raw_decode(text, text.index(":") + 1 + (text[text.index(":") + 1] == " "))[0]
    except (ValueError, IndexError, RecursionError):
        return ""
    is_usable = isinstance(key, str) and 0 < len(key) <= MAX_KEY_CHARACTERS and "\ufffd" not in key
    return key if is_usable and key.isprintable() else ""


def _draft(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")
