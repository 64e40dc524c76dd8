"""Writes a job's answers: a result file of lines, a block at a time, or the JSON array of inlined responses."""

import hashlib
import itertools
import mmap
import random
from array import array
from collections.abc import Iterator, Set
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from gemini_batch_mcp.domain import Task
from gemini_batch_mcp.sandbox.config import FileFault, SandboxConfig
from gemini_batch_mcp.sandbox.lifecycle.met import MetOnce
from gemini_batch_mcp.sandbox.lifecycle.references import References
from gemini_batch_mcp.sandbox.replies.rows import RowOutput, RowWriter

_ROWS_PER_BLOCK: Final = 2_000
_BUFFER_BYTES: Final = 4 * 1024**2


@dataclass(frozen=True, slots=True)
class OutputOrder:
    """What to write: the answers to the first `rows` rows, under a model, for a file or inlined."""

    task: Task
    model: str
    rows: int
    is_inline: bool


@dataclass(frozen=True, slots=True)
class Output:
    """What was written. Rows without an output line count as succeeded, as their job would count them."""

    succeeded: int = 0
    failed: int = 0
    size_bytes: int = 0
    sha256: str = ""


def write_output(
    rows: Path, target: Path, order: OutputOrder, config: SandboxConfig, references: References | None = None
) -> Output:
    """Write the answers to `target`, with the faults that the configuration and the rows' markers ask for.

    With `references`, rows whose files cannot be used fail.
    """
    once = MetOnce(rows.parent)
    writer = RowWriter(
        order.task,
        order.model,
        is_inline=order.is_inline,
        faults=config.row_faults,
        echoes_keys=config.echoes_keys,
        met=once.digests,
    )
    failed = 0
    separator = b"," if order.is_inline else b"\n"
    with once, rows.open("rb", buffering=_BUFFER_BYTES) as source, target.open("wb", buffering=_BUFFER_BYTES) as file:
        sink = _Sink(file)
        lines = itertools.islice(source, order.rows)
        while block := list(itertools.islice(lines, _ROWS_PER_BLOCK)):
            outputs = [_output(line, writer, references) for line in block]
            failed += sum([output.failed for output in outputs])
            texts = [text for output in outputs for text in output.texts]
            if order.is_inline:
                sink.write((b"," if sink.size_bytes else b"[") * bool(texts) + separator.join(texts))
            else:
                sink.write(separator.join([*texts, b""]))
        if order.is_inline:
            sink.write(b"]" if sink.size_bytes else b"[]")
    if not order.is_inline and (file_faults := config.file_faults | writer.file_faults):
        sink = _damage(target, file_faults)
    return Output(order.rows - failed, failed, sink.size_bytes, sink.digest.hexdigest())


def _output(line: bytes, writer: RowWriter, references: References | None) -> RowOutput:
    failure = references.failure(line) if references is not None else None
    return writer.write(line) if failure is None else RowOutput((failure,), failed=True)


class _Sink:
    """A file that knows its size and its SHA-256."""

    def __init__(self, file: BinaryIO) -> None:
        self.size_bytes = 0
        self.digest = hashlib.sha256()
        self._file = file

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self.digest.update(data)
        self.size_bytes += len(data)


def _damage(path: Path, faults: Set[FileFault]) -> _Sink:
    """Write the lines of a result file again with the faults of whole files."""
    damaged = path.with_name(f"{path.name}.damaged")
    with damaged.open("wb", buffering=_BUFFER_BYTES) as file:
        sink = _Sink(file)
        lines = _reordered_lines(path, is_shuffled=FileFault.SHUFFLED in faults)
        if FileFault.CRLF in faults:
            lines = (line[:-1] + b"\r\n" for line in lines)
        waiting = next(lines, b"")
        for line in lines:
            sink.write(waiting)
            waiting = line
        sink.write(waiting[: len(waiting) // 2] if FileFault.CUT_LAST_LINE in faults else waiting)
    damaged.replace(path)
    return sink


def _reordered_lines(path: Path, *, is_shuffled: bool) -> Iterator[bytes]:
    """Yield the lines in their order, or in one that follows from their number; only their places are in memory."""
    with path.open("rb", buffering=_BUFFER_BYTES) as file:
        if not is_shuffled:
            yield from file
            return
        starts = array("Q", itertools.accumulate((len(line) for line in file), initial=0))
        if len(starts) == 1:
            return
        order = array("Q", range(len(starts) - 1))
        random.Random(len(order)).shuffle(order)  # noqa: S311  # an order that everyone can repeat is wanted
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
            for index in order:
                yield view[starts[index] : starts[index + 1]]
