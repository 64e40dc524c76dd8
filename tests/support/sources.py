"""Sources of every kind, tiny files to attach, OpenAI lines; and what the product makes of each, or why it refuses."""

import json
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import duckdb

from gemini_batch_mcp.batches.desk import Desk
from gemini_batch_mcp.domain import JsonObject, Order, Task
from gemini_batch_mcp.errors import BatchError, RequestProblems
from gemini_batch_mcp.intake.compose import write_rows
from gemini_batch_mcp.intake.files.planning import AttachmentPlan
from gemini_batch_mcp.intake.openai.lines import Conversion
from gemini_batch_mcp.intake.tables.folders import Folder
from gemini_batch_mcp.intake.tables.memory import EFFORTS, MoreEffort
from gemini_batch_mcp.intake.tables.reading import Table, open_table
from gemini_batch_mcp.intake.template import Column, Template
from gemini_batch_mcp.intake.validator.world import World


def read(source: Path | Folder, limit_rows: int = 0) -> tuple[list[str], list[list[str]], list[str]]:
    """Return columns, rows and warnings, every cell exactly as it would be inserted into a prompt."""
    with TemporaryDirectory() as name, open_table(source, Path(name)) as table:
        form: list[str | Template] = ["["]
        for number, column in enumerate(table.columns):
            form += [",", Template((Column(column),))] if number else [Template((Column(column),))]
        lines = Path(name) / "lines"
        count = _written(table, [*form, "]"], lines, limit_rows)
        rows = [json.loads(line) for line in lines.read_bytes().split(b"\n")[:-1]]
        assert len(rows) == count
        return list(table.columns), rows, list(table.warnings)


def first_requests(
    source: Path | Folder, *, order: Order, count: int = 2, attachments: AttachmentPlan | None = None
) -> tuple[dict[str, Any], ...]:
    """Return the first `count` lines that the product writes of a source, as objects."""
    first = replace(order, limit_rows=min(count, order.limit_rows) if order.limit_rows else count)
    with TemporaryDirectory() as name:
        path = Path(name) / "requests.jsonl"
        write_rows(source, path, order=first, keys_path=path.with_suffix(".keys"), attachments=attachments)
        return tuple(json.loads(line) for line in path.read_bytes().split(b"\n")[:-1])


def outcome(source: Path | Folder) -> dict[str, Any]:
    """Return what came of a source, as plain values."""
    try:
        columns, rows, warnings = read(source)
    except RequestProblems as error:
        return {"problems": [f"{problem.line}: {problem.message}" for problem in error.problems]}
    except BatchError as error:
        return {"refused": error.message}
    return {"columns": columns, "rows": rows} | ({"warnings": warnings} if warnings else {})


def _written(table: Table, form: list[str | Template], lines: Path, limit_rows: int) -> int:
    for effort in EFFORTS:
        try:
            return table.write_lines(form, lines, limit_rows=limit_rows, effort=effort)
        except MoreEffort:
            continue
    raise AssertionError("no effort was enough")


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
    return f"Column {column} of t.csv has no name in the header; it is named column_{column}."


def outcome_of(source: Source, path: Path) -> dict[str, Any]:
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


def png(seed: int = 0, extra_bytes: int = 0) -> bytes:
    """A picture of one pixel; `extra_bytes` of a private chunk make it as large as wanted."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    pixel = zlib.compress(b"\0" + (seed & 0xFFFFFF).to_bytes(3))
    padding = chunk(b"zzZz", bytes(extra_bytes)) if extra_bytes else b""
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + padding + chunk(b"IDAT", pixel) + chunk(b"IEND", b"")


def jpeg(seed: int = 0) -> bytes:
    """The beginning and the end of a JPEG."""
    return b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00" + bytes([seed]) * 8 + b"\xff\xd9"


def pdf(pages: int = 1, *, title: str = "", packed: bool = False) -> bytes:
    """A whole PDF with empty pages; `packed` puts the objects into a compressed stream, as newer writers do."""
    kids = " ".join(f"{number} 0 R" for number in range(3, 3 + pages))
    objects = [
        "<</Type /Catalog /Pages 2 0 R>>",
        f"<</Type /Pages /Kids [{kids}] /Count {pages}>>",
        *["<</Type /Page /Parent 2 0 R /MediaBox [0 0 9 9]>>"] * pages,
    ]
    head = f"%PDF-1.7\n%{title}\n".encode()
    if packed:
        body = zlib.compress(" ".join(objects).encode())
        stream = f"1 0 obj\n<</Type /ObjStm /N {len(objects)} /Filter /FlateDecode /Length {len(body)}>>\nstream\n"
        return head + stream.encode() + body + b"\nendstream\nendobj\n%%EOF\n"
    written = "".join(f"{number} 0 obj\n{text}\nendobj\n" for number, text in enumerate(objects, 1))
    return head + f"{written}trailer\n<</Size {len(objects) + 1} /Root 1 0 R>>\n%%EOF\n".encode()


def mp4(seed: int = 0) -> bytes:
    """The first boxes of an MP4 video."""
    return b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + b"\0\0\0\x09mdat" + bytes([seed])


def write(directory: Path, **files: bytes) -> None:
    """Write files whose names are given with `_` for the dot: `a_png=b"…"`."""
    for name, content in files.items():
        directory.joinpath(".".join(name.rsplit("_", 1))).write_bytes(content)


HELLO = [{"role": "user", "content": "hi"}]


def line(body: Mapping[str, Any], custom_id: Any = "a", url: str = "/v1/chat/completions") -> dict[str, Any]:
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": body}


def embed(body: Mapping[str, Any]) -> dict[str, Any]:
    return line(body, url="/v1/embeddings")


def converted(value: Any, task: Task = "generate", model: str = "") -> Any:
    written, checked = Conversion(task, World(model=model)).line(json.dumps(value).encode(), 3)
    assert checked.problems == ()
    sent = json.loads(written)
    assert sent["key"] == checked.key == "a"
    return sent["request"]


def chat(**members: Any) -> Any:
    return converted(line({"messages": HELLO, **members}))


def configured(**members: Any) -> Any:
    return chat(**members).get("generationConfig")


def messages(*given: Any) -> Any:
    return converted(line({"messages": given}))


def refused_line(value: Any, task: Task = "generate") -> tuple[str, str]:
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    _, checked = Conversion(task).line(text, 3)
    (problem,) = checked.problems
    assert problem.line == 3
    return problem.message, problem.fix


def said(*values: Any, model: str = "") -> tuple[str, ...]:
    conversion = Conversion("generate", World(model=model))
    for number, value in enumerate(values, 1):
        assert not conversion.line(json.dumps(value).encode(), number)[1].problems
    return conversion.warnings(len(values))
