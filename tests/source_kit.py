"""Reads a source as the product does, and says what came of it: its rows, or why it was refused."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from gemini_batch_mcp.errors import BatchError, RequestProblems
from gemini_batch_mcp.intake.effort import EFFORTS, MoreEffort
from gemini_batch_mcp.intake.sources import Folder, Table, open_table
from gemini_batch_mcp.intake.template import Column, Template


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
