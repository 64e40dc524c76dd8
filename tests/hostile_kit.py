"""Hostile sources and what comes of them: a source is rendered as the product does, or refused with the reason."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import duckdb

from gemini_batch_mcp.batches.desk import Desk
from gemini_batch_mcp.domain import JsonObject, Order
from gemini_batch_mcp.errors import BatchError, RequestProblems
from gemini_batch_mcp.intake.compose import write_rows

#: The prompt of most sources, which have these two columns.
PROMPT: Final = "{{id}}|{{text}}"
#: That of sources with one column.
TEXT: Final = "{{text}}"


@dataclass(frozen=True)
class Source:
    """A source, the parts of an order that go with it, and its one outcome.

    `data` is the file's content, or makes the file. With `refusal`, nothing else of the outcome is there: its first
    line is a sentence about the whole source, or each one is a problem with its line. `keys` are checked where the
    order has a `key_column`.
    """

    name: str
    data: bytes | Callable[[Path], object]
    file: str = "t.csv"
    order: dict[str, Any] = field(default_factory=dict)
    texts: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    refusal: tuple[str, ...] = ()

    @property
    def expected(self) -> dict[str, Any]:
        """The outcome, as `outcome` returns it."""
        if self.refusal:
            return {"refused": self.refusal}
        keys = {"keys": self.keys} if self.keys else {}
        return {"texts": self.texts, "warnings": self.warnings, **keys}

    @property
    def expected_preview(self) -> dict[str, Any]:
        """The outcome, as `previewed` returns it."""
        if self.refusal:
            return {"refused": self.refusal}
        return {"count": len(self.texts), "texts": self.texts[:2], "unsaid": set()}

    def make(self, directory: Path) -> Path:
        """Make the file."""
        path = directory / self.file
        if isinstance(self.data, bytes):
            path.write_bytes(self.data)
        else:
            self.data(path)
        return path

    def given(self, path: Path | str = "") -> Order:
        """The order for it."""
        return Order(**{"source": str(path), "prompt": PROMPT, **self.order})


def rows(
    name: str,
    data: bytes | Callable[[Path], object],
    *texts: str,
    file: str = "t.csv",
    warns: str | tuple[str, ...] = (),
    keys: tuple[str, ...] = (),
    **order: Any,
) -> Source:
    """A source that is read: the text of each request, in order."""
    return Source(name, data, file, order, texts, keys, (warns,) if isinstance(warns, str) else warns)


def refused(
    name: str, data: bytes | Callable[[Path], object], *sentences: str, file: str = "t.csv", **order: Any
) -> Source:
    """A source that is refused: the message, or each problem as "line: message"."""
    return Source(name, data, file, order, refusal=sentences)


def parquet(query: str) -> Callable[[Path], object]:
    """Write what a query selects as a Parquet file."""
    return lambda path: duckdb.execute(f"COPY ({query}) TO '{path}' (FORMAT parquet)")


def cut_off(path: Path) -> None:
    """Write a Parquet file without its last bytes, which say what it holds."""
    parquet("SELECT range AS id, hash(range) AS text FROM range(1000)")(path)
    path.write_bytes(path.read_bytes()[:-100])


def wide(columns: int) -> bytes:
    """Return a CSV file of so many columns and one row."""
    names = (f"column {number}" for number in range(columns))
    return f"{','.join(names)}\n{','.join(map(str, range(columns)))}\n".encode()


def read_as(encoding: str, name: str = "t.csv") -> str:
    """Return the warning about a file that is not UTF-8."""
    return f"{name} is not UTF-8; it was read as {encoding}."


def unnamed(column: int) -> str:
    """Return the warning about a column without a name."""
    return f"Column {column} of t.csv has no name in the header; it is called column_{column}."


def outcome(source: Source, path: Path) -> dict[str, Any]:
    """Return what the product makes of a source."""
    with TemporaryDirectory() as name:
        directory = Path(name)
        try:
            written = write_rows(
                path, directory / "requests.jsonl", order=source.given(), keys_path=directory / "keys.jsonl"
            )
        except BatchError as error:
            assert not list(directory.iterdir())
            return {"refused": sentences(error)}
        lines = [json.loads(line) for line in written.path.read_bytes().split(b"\n")[:-1]]
        keys = tuple(json.loads(line) for line in written.keys_path.read_bytes().split(b"\n")[:-1])
        assert keys == tuple(line["key"] for line in lines)
        assert len(set(keys)) == len(lines) == written.count
        texts = tuple(text_of(line["request"]) for line in lines)
        known = {"keys": keys} if source.keys else {}
        return {"texts": texts, "warnings": written.warnings, **known}


async def previewed(desk: Desk, source: Source, directory: Path) -> dict[str, Any]:
    """Return what a preview makes of a source: its first texts, and warnings that it keeps to itself."""
    try:
        preview = await desk.preview(source.given(source.make(directory)))
    except BatchError as error:
        return {"refused": tuple(sentence.replace(str(directory), "…") for sentence in sentences(error))}
    if preview.problems:
        return {"refused": tuple(f"{problem.line}: {problem.message}" for problem in preview.problems)}
    texts = tuple(text_of(line["request"]) for line in preview.sample)
    return {"count": preview.request_count, "texts": texts, "unsaid": {*source.warnings} - {*preview.warnings}}


def sentences(error: BatchError) -> tuple[str, ...]:
    """Return a refusal as a table of sources states it."""
    if not isinstance(error, RequestProblems):
        return (error.message,)
    assert error.problem_count >= len(error.problems)
    return tuple(f"{problem.line}: {problem.message}" for problem in error.problems)


def text_of(request: JsonObject) -> str:
    """Return the one text of a request."""
    content = request.get("content") or request["contents"][0]
    [part] = content["parts"]
    return str(part["text"])
