"""Answer files and tables for the tests of `results/`."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb

from gemini_batch_mcp.domain import ResultRow, ResultSummary
from gemini_batch_mcp.results.columns import identifier
from gemini_batch_mcp.results.store import AnswerFile, ResultTable, TablePlan, build_planned, build_table


def answer(key: str | None, text: str = "fine", finish_reason: str = "STOP", **response: Any) -> bytes:
    """Return one answer line; members of `response` replace or join those of an ordinary response."""
    whole: dict[str, Any] = {
        "candidates": [{"content": {"parts": [{"text": text}]}, "finishReason": finish_reason}],
        "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 2, "thoughtsTokenCount": 1},
        "modelVersion": "gemini-3.8-flash",
    } | response
    return line(key, response=whole)


def failure(key: str | None, message: str = "Internal error encountered.") -> bytes:
    """Return an answer line that holds an error."""
    return line(key, error={"code": 13, "message": message})


def line(key: str | None, **members: Any) -> bytes:
    """Return one line of JSON with the key where there is one."""
    return json.dumps(({} if key is None else {"key": key}) | members).encode() + b"\n"


def answer_file(directory: Path, content: bytes | Sequence[bytes], *, name: str = "answers-1.jsonl") -> Path:
    """Write an answer file."""
    path = directory / name
    path.write_bytes(content if isinstance(content, bytes) else b"".join(content))
    return path


def keys_file(directory: Path, keys: Sequence[str], *, name: str = "keys.jsonl") -> Path:
    """Write the keys that were sent, as intake does."""
    path = directory / name
    path.write_text("".join(json.dumps(key) + "\n" for key in keys), encoding="utf-8")
    return path


def table_of(
    directory: Path, content: bytes | Sequence[bytes], *, keys: Sequence[str] | None = None, expected_rows: int = 0
) -> ResultTable:
    """Build the table of one answer file and open it."""
    keys_path = None if keys is None else keys_file(directory, keys)
    destination = directory / "results.parquet"
    build_table([AnswerFile(answer_file(directory, content), keys_path)], destination, expected_rows=expected_rows)
    return ResultTable.open(destination)


def planned(
    directory: Path, content: bytes | Sequence[bytes], *, keys: Sequence[str] | None, **plan: Any
) -> ResultTable:
    """Build the table of one answer file as a plan with these members says, and open it."""
    keys_path = None if keys is None else keys_file(directory, keys)
    answers = (AnswerFile(answer_file(directory, content), keys_path),)
    return rebuilt(directory, TablePlan(answers, **plan))


def rebuilt(directory: Path, plan: TablePlan) -> ResultTable:
    """Build what is planned, and open it."""
    build_planned(plan, directory / "results.parquet")
    return ResultTable.open(directory / "results.parquet")


def source_file(directory: Path, columns: Mapping[str, Sequence[str | None]]) -> Path:
    """Write the columns of a user's table as intake does: text, beside the number of the row."""
    path = directory / "source.parquet"
    height = max(map(len, columns.values()))
    names = ", ".join(f"{identifier(name)} VARCHAR" for name in columns)
    with duckdb.connect() as connection:
        connection.execute(f"CREATE TABLE source (row BIGINT, {names})")
        marks = ", ".join("?" * (1 + len(columns)))
        rows = [[row + 1, *(column[row] for column in columns.values())] for row in range(height)]
        connection.executemany(f"INSERT INTO source VALUES ({marks})", rows)
        connection.execute(f"COPY source TO '{path}' (FORMAT parquet)")
    return path


def cells(table: ResultTable, sql: str) -> list[tuple[Any, ...]]:
    """Run a query over the table, which is called `results` in it."""
    with duckdb.connect() as connection:
        connection.execute(f"CREATE VIEW results AS FROM read_parquet('{table.path}')")
        return connection.execute(sql).fetchall()


def all_rows(table: ResultTable, *, limit: int = 1000) -> list[ResultRow]:
    """Read a table to its end, page by page."""
    rows: list[ResultRow] = []
    cursor = ""
    while True:
        page = table.page(view="rows", limit=limit, cursor=cursor)
        rows += page.rows
        if not page.next_cursor:
            return rows
        cursor = page.next_cursor


def only_row(directory: Path, content: bytes) -> ResultRow:
    """Return the one row of a table built from one line under the key "a"."""
    (row,) = all_rows(table_of(directory, content, keys=["a"]))
    return row


def exported(table: ResultTable, directory: Path) -> list[dict[str, Any]]:
    """Export a table and read it back as strict JSON."""
    path = table.export_jsonl(directory / "export.jsonl").path
    return [json.loads(text, parse_constant=_refuse) for text in path.read_bytes().split(b"\n")[:-1]]


def status_sum(summary: ResultSummary) -> int:
    """Return how many rows have a status."""
    return summary.succeeded + summary.failed + summary.blocked + summary.truncated + summary.empty + summary.missing


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")
