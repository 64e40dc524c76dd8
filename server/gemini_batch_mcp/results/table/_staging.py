"""A slice of answer lines as a part of the table: read, mended where that helps, checked against the schema, laid out.

A part is what the table will be if every answer stands where its request stood, which is the rule: the columns of the
source are those of the row with the same number. `merge` finds out whether that is so.

A line costs no other line its row. Where the engine says only that it cannot take a slice, halves of it are tried,
down to the single line, for which a failed row stands.
"""

# ruff: noqa: S608 - queries consist of our own names, of numbers, and of literals made by `quoted`

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import msgspec

from gemini_batch_mcp.domain import Column
from gemini_batch_mcp.results.engine import (
    execute_widening,
    identifier,
    is_of_content,
    listed,
    most_memory,
    quoted,
    rows_of,
)
from gemini_batch_mcp.results.outcomes import MISFIT
from gemini_batch_mcp.results.structured.checking import NO_JSON, AnswerCheck
from gemini_batch_mcp.results.structured.exact import LONG_NUMBER, ExactNumbers
from gemini_batch_mcp.results.table._classify import answer_source, classified
from gemini_batch_mcp.results.table._parts import PART_FORMAT, agree, member_pointer
from gemini_batch_mcp.results.table._slice_files import SliceFiles
from gemini_batch_mcp.results.table.inputs import NOT_PAID, Rates
from gemini_batch_mcp.results.table.layout import Layout, with_texts
from gemini_batch_mcp.results.table.lines import (
    BOM,
    is_too_long,
    lines_of,
    long_lines_of,
    mended,
    misshapen,
    stand_in,
    too_large,
    with_error,
)
from gemini_batch_mcp.results.table.slices import Slice
from gemini_batch_mcp.settings import MAX_UNSEEN_LINE_BYTES

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

#: Longer lines are looked at before the engine reads them. Its buffers are twice this size, and never below 32 MB.
_MAX_LINE_BYTES: Final = MAX_UNSEEN_LINE_BYTES
#: A line that is so long is most likely what the engine cannot take.
_LONG_BYTES: Final = 1 << 20
_FETCHED_ROWS: Final = 1024

_TWICE: Final = "the answer has the same member twice"
_NOT_READ: Final = "the answer's JSON cannot be read"


class _Outsized(Exception):
    """A slice has a line that is larger than lines may be; the text says how."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a slice belongs: in which file, of which attempt, behind how many of its lines and of the table's rows."""

    file: int
    attempt: int
    lines_before: int
    rows_before: int
    rates: Rates | None = None
    #: The answers were taken from earlier batches, which have paid for them.
    is_taken: bool = False


@dataclass(frozen=True, slots=True)
class _Limits:
    """What the widest line of a slice takes."""

    max_line_bytes: int
    memory_bytes: int

    def widened(self, line_bytes: int) -> Self:
        # Measured: two buffers of twice the longest line, its parsed form, and copies of its text.
        extra = max(line_bytes + 1 - self.max_line_bytes, 0)
        return replace(
            self, max_line_bytes=self.max_line_bytes + extra, memory_bytes=most_memory(2 * (self.memory_bytes + extra))
        )


class _Verdict(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is to be said about the answer of a line: why it does not fit, what of it was taken, its exact members."""

    line: int
    reason: str | None = None
    taken: str | None = None
    exact: tuple[str | None, ...] | None = None


@dataclass(frozen=True, slots=True)
class _Verdicts:
    """Verdicts of a slice, one a line."""

    path: Path
    longest_bytes: int

    @property
    def source(self) -> str:
        """The table function that reads them."""
        return (
            f"read_json({quoted(self.path)}, format = 'newline_delimited', hive_partitioning = false, "
            f"maximum_object_size = {max(_MAX_LINE_BYTES, self.longest_bytes + 1)}, "
            "columns = {line: 'BIGINT', reason: 'VARCHAR', taken: 'VARCHAR', exact: 'VARCHAR[]'})"
        )


class Stager:
    """Makes parts, one at a time, in `workspace`."""

    def __init__(
        self,
        connection: "DuckDBPyConnection",
        layout: Layout,
        workspace: Path,
        *,
        source: Path | None,
        check: AnswerCheck | None,
        memory_limit_bytes: int,
    ) -> None:
        self._connection = connection
        self._layout = layout
        self._workspace = workspace
        self._source = source
        self._check = check
        self._numbers = ExactNumbers.of([Column(named.origin, named.column.type) for named in layout.fields])
        self._limits = _Limits(_MAX_LINE_BYTES, memory_limit_bytes)
        self._files = SliceFiles()
        connection.register_filesystem(self._files)

    @property
    def layout(self) -> Layout:
        """The columns of the next part: a field has become text where a number has come that its type does not hold."""
        return self._layout

    def stage(self, piece: Slice, place: Place) -> Path:
        """Write the rows of a slice as a Parquet file, which the next call replaces. A NULL status makes no row."""
        part = self._isolated(piece, place)
        doubtful = dict(
            self._connection.execute(
                f"""SELECT line - {place.lines_before}, status FROM read_parquet({quoted(part)})
                    WHERE status IS NULL OR status = 'empty'"""
            ).fetchall()
        )
        corrected = self._workspace / "corrected.jsonl"
        if doubtful and self._correct(piece, doubtful, corrected):
            part = self._isolated(Slice.whole(corrected), place)
            corrected.unlink()
        return part

    def _isolated(self, piece: Slice, place: Place, depth: int = 0) -> Path:
        """Stage a slice; a line that cannot be taken, for whatever reason, becomes a failed row."""
        import duckdb

        try:
            return self._staged(piece, place)
        except duckdb.Error as error:
            if not is_of_content(error):
                raise
            reason = f"the table engine cannot load its line ({type(error).__name__})"
        except _Outsized as outsized:
            reason = str(outsized)
        starts, cuts = _starts_and_cuts(piece)
        if len(starts) < 2:
            return self._replaced(piece, place, reason)
        if not cuts:
            return self._isolated(self._without_marks(piece, depth), place, depth + 1)
        joined, part = self._workspace / f"joined-{depth}.parquet", self._workspace / "part.parquet"
        for first, last in pairwise((0, *cuts, len(starts))):
            end = starts[last] if last < len(starts) else piece.size_bytes
            behind = replace(place, lines_before=place.lines_before + first, rows_before=place.rows_before + first)
            part = self._isolated(piece.between(starts[first] if first else 0, end), behind, depth + 1)
            if first:
                both = self._workspace / "both.parquet"
                agree(self._connection, joined, self._layout, self._limits.memory_bytes)
                statement = f"COPY (FROM {rows_of(joined, part)}) TO {quoted(both)} ({PART_FORMAT})"
                execute_widening(self._connection, statement, self._limits.memory_bytes)
                part = both
            part.replace(joined)
        return joined.replace(self._workspace / "part.parquet")

    def _without_marks(self, piece: Slice, depth: int) -> Slice:
        """Return the lines of a slice without byte order marks, so that each can be cut off."""
        path = self._workspace / f"plain-{depth}.jsonl"
        with piece.open() as file, path.open("wb") as plain:
            for _, line in lines_of(file):
                plain.write((line.removeprefix(BOM).strip(b"\n") or b"null") + b"\n")
        return Slice.whole(path)

    def _replaced(self, piece: Slice, place: Place, reason: str) -> Path:
        """Stage the failed rows that stand for lines which cannot be taken."""
        replacement = self._workspace / "stand-in.jsonl"
        with piece.open() as file:
            replacement.write_bytes(b"".join(stand_in(line, reason) for _, line in lines_of(file)))
        part = self._staged(Slice.whole(replacement), place)
        replacement.unlink()
        return part

    def _staged(self, piece: Slice, place: Place) -> Path:
        import duckdb

        try:
            return self._written(piece, place, self._limits)
        except duckdb.Error:
            longest_bytes = 0
            with piece.open() as file:
                for line in long_lines_of(file, _MAX_LINE_BYTES):
                    if outsized := too_large(line):
                        raise _Outsized(outsized) from None
                    longest_bytes = max(longest_bytes, len(line))
            limits = self._limits.widened(longest_bytes)
            try:
                return self._written(piece, place, limits)
            finally:
                self._connection.execute(f"SET memory_limit = '{self._limits.memory_bytes}B'")

    def _written(self, piece: Slice, place: Place, limits: _Limits) -> Path:
        part = self._workspace / "part.parquet"
        with self._files.showing(piece) as name:
            rows = classified(
                answer_source(quoted(name), limits.max_line_bytes), with_embedding=self._layout.has_embedding
            )
            if self._check is None:
                self._copy(self._laid_out(rows, piece, place), part, limits)
                return part
            unchecked = self._workspace / "unchecked.parquet"
            self._copy(rows, unchecked, limits)
        rows = self._judged(unchecked, self._verdicts(unchecked))
        self._copy(self._laid_out(rows, piece, place), part, limits)
        return part

    def _copy(self, query: str, destination: Path, limits: _Limits) -> None:
        statement = f"COPY ({query}) TO {quoted(destination)} ({PART_FORMAT})"
        if limits == self._limits:
            self._connection.execute(statement)
        else:
            execute_widening(self._connection, statement, limits.memory_bytes)

    def _laid_out(self, rows: str, piece: Slice, place: Place) -> str:
        """Return the query of a part: the columns of the table, of the rows of a slice."""
        own = {
            "row": f"{place.rows_before} + rows.line",
            "line": f"{place.lines_before} + rows.line",
            "file": f"{place.file}::INTEGER",
            "attempt": f"{place.attempt}::INTEGER",
            "history": "NULL",
            "cost_usd": _cost(place.rates),
            "answered_by": "''",
        }
        if place.is_taken:
            own |= {**NOT_PAID, "answered_by": "coalesce(rows.answered_by, '')"}
        if self._check is None:
            own |= {"json": "NULL::JSON", "cleaned": "NULL::BOOLEAN"}
        source = {named.column.name: f"source.{identifier(named.origin)}" for named in self._layout.source}
        fields = self._field_expressions()

        def expression(column: Column) -> str:
            given = source.get(column.name) or fields.get(column.name) or own.get(column.name)
            return given or f"rows.{identifier(column.name)}"

        query = f"SELECT {self._layout.select(expression)} FROM ({rows}) rows"
        if source:
            first, last = place.rows_before + 1, place.rows_before + piece.max_lines()
            query += f"""
                LEFT JOIN (FROM read_parquet({quoted(self._source or "")}, hive_partitioning = false)
                           WHERE row BETWEEN {first} AND {last}) source
                  ON source.row = {place.rows_before} + rows.line"""
        return query

    def _field_expressions(self) -> dict[str, str]:
        """Return the SQL of each field. Plain ones stand in the list `scalars`, all others in `trees`.

        The list `exact` has all of them, each where the engine would make another number of it.
        """
        places = {True: 0, False: 0}
        expressions: dict[str, str] = {}
        for number, named in enumerate(self._layout.fields, start=1):
            column, is_tree = named.column, named.column.type == "JSON"
            places[is_tree] += 1
            if is_tree:
                expression = f"coalesce(rows.exact[{number}], nullif(rows.trees[{places[True]}], 'null'))::JSON"
            elif column.type == "VARCHAR":
                expression = f"coalesce(rows.exact[{number}], rows.scalars[{places[False]}])"
            else:
                expression = f"try_cast(rows.scalars[{places[False]}] AS {column.type})"
            expressions[column.name] = expression
        return expressions

    def _judged(self, unchecked: Path, verdicts: "_Verdicts") -> str:
        """Return the rows of a slice with what was found out about their answers' JSON."""
        pointers: dict[bool, list[str]] = {True: [], False: []}
        for named in self._layout.fields:
            pointers[named.column.type == "JSON"].append(quoted(member_pointer(named.origin)))
        return f"""
            SELECT unfit.* REPLACE (
                       CASE WHEN fault IS NULL THEN status ELSE 'failed' END AS status,
                       CASE WHEN fault IS NULL THEN error_message ELSE {quoted(MISFIT)} || fault END AS error_message
                   ),
                   CASE WHEN fault IS NULL AND status = 'ok' THEN body::JSON END AS json,
                   fault IS NULL AND status = 'ok' AND is_taken AS cleaned,
                   CASE WHEN fault IS NULL AND status = 'ok'
                        THEN json_extract_string(body, {listed(pointers[False])}::VARCHAR[]) END AS scalars,
                   CASE WHEN fault IS NULL AND status = 'ok'
                        THEN json_extract(body, {listed(pointers[True])}::VARCHAR[]) END AS trees
            FROM (
                SELECT rows.*, coalesce(verdicts.taken, rows."text") AS body, verdicts.exact AS exact,
                       verdicts.taken IS NOT NULL AS is_taken,
                       CASE WHEN rows.status = 'ok' THEN coalesce(verdicts.reason,
                           CASE WHEN NOT coalesce(json_valid(body), false) THEN {quoted(_NOT_READ)}
                                WHEN TRY(len(json_keys(body)) > len(list_distinct(json_keys(body))))
                                THEN {quoted(_TWICE)} END) END AS fault
                FROM read_parquet({quoted(unchecked)}) rows
                LEFT JOIN {verdicts.source} verdicts ON verdicts.line = rows.line
            ) unfit"""

    def _verdicts(self, unchecked: Path) -> "_Verdicts":
        """Judge every whole answer, and write what is to be said about it where there is anything.

        Fields with a number that their column does not hold become text.
        """
        assert self._check is not None
        path = self._workspace / "verdicts.jsonl"
        encoder = msgspec.json.Encoder()
        is_long = f"""regexp_matches("text", {quoted(LONG_NUMBER)})""" if self._numbers is not None else "false"
        answers = self._connection.execute(
            f"""SELECT line, "text", {is_long} FROM read_parquet({quoted(unchecked)}) WHERE status = 'ok'"""
        )
        longest_bytes, inexact = 0, set[int]()
        with path.open("wb") as file:
            for line, body, may_be_inexact in _fetched(answers):
                reason, taken = self._check.fault(body), None
                if reason == NO_JSON and (taken := self._check.taken_out(body)) is not None:
                    body, reason = taken, self._check.fault(taken)
                tokens = self._numbers.tokens(body) if may_be_inexact and not reason and self._numbers else None
                if reason or taken is not None or tokens is not None:
                    verdict = _Verdict(line, reason or None, taken, tokens.texts if tokens is not None else None)
                    longest_bytes = max(longest_bytes, file.write(encoder.encode(verdict) + b"\n"))
                    inexact |= tokens.inexact if tokens is not None else set()
        self._layout = with_texts(self._layout, inexact)
        return _Verdicts(path, longest_bytes)

    def _correct(self, piece: Slice, doubtful: Mapping[int, str | None], path: Path) -> bool:
        """Write the slice to `path` with doubtful lines looked at again; returns whether that changes anything.

        Of those without a status the ones that were no JSON are mended. Empty answers that hold something in another
        form than Gemini's become errors that say so. The file has the same lines in the same order. Of several blank
        ones in a row one stays, so that a line which begins with a byte order mark does not come to stand first.
        """
        is_changed, copied = False, 0
        with piece.open() as file, path.open("wb") as corrected:
            for number, (offset, line) in enumerate(lines_of(file), start=1):
                text = line
                if is_too_long(line):
                    text = stand_in(line, too_large(line))
                elif number in doubtful:
                    text = line if doubtful[number] else mended(line).encode() or line
                    if fault := misshapen(text):
                        text = with_error(text, fault)
                    is_changed |= text.rstrip(b"\r\n") != line.rstrip(b"\r\n")
                corrected.write(b"\n" * (offset > copied) + text.rstrip(b"\n") + b"\n")
                copied = offset + len(line)
        return is_changed


def _cost(rates: Rates | None) -> str:
    """Return the SQL of what a row's answer cost in USD: NULL where its tokens or their price are not known."""
    if rates is None:
        return "NULL::DOUBLE"
    read, written = "coalesce(input_tokens, 0)", "(coalesce(output_tokens, 0) + coalesce(thoughts_tokens, 0))"
    usd = f"{read} * {rates.input_usd!r}::DOUBLE + {written} * {rates.output_usd!r}::DOUBLE"
    return f"CASE WHEN {read} + {written} > 0 THEN {usd} END"


def _starts_and_cuts(piece: Slice) -> tuple[Sequence[int], tuple[int, ...]]:
    """Return where the lines of a slice start, and the numbers (from 0) of those at which to cut it; none for one line.

    Where one is very long, it is most likely what cannot be taken: it is cut out. Otherwise the slice is cut in the
    middle. Not before a byte order mark, which is no part of a line at the start of a file.
    """
    starts, places = array("Q"), array("Q")
    longest_bytes, longest = 0, 0
    with piece.open() as file:
        for number, (offset, line) in enumerate(lines_of(file)):
            starts.append(offset)
            if number and not line.startswith(BOM):
                places.append(number)
            if len(line) > longest_bytes:
                longest_bytes, longest = len(line), number
    if not places:
        return starts, ()
    around = tuple(place for place in (longest, longest + 1) if longest_bytes >= _LONG_BYTES and place in places)
    return starts, around or (places[len(places) // 2],)


def _fetched(result: "DuckDBPyConnection") -> Iterator[tuple[Any, ...]]:
    while chunk := result.fetchmany(_FETCHED_ROWS):
        yield from chunk
