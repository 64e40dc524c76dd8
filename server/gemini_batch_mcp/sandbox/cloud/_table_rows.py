"""Jobs of Vertex AI over tables in BigQuery: their rows before they run, and the table that they leave.

Forms: wire samples 81 and 86. Columns beside `request` come back with the answer, and an empty
`status` where all went well.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from gemini_batch_mcp.sandbox.cloud._tables import Tables
from gemini_batch_mcp.sandbox.wire import ApiError, timestamp

#: Types of columns that are not taken (Agent Platform page on batches from BigQuery, read 2026-11).
_NOT_TAKEN: Final = frozenset({"RECORD", "DATETIME", "GEOGRAPHY", "RANGE"})
_REQUEST: Final = "request"
#: The request as it stood in the table, among the members of a row while it is worked on.
_AS_IT_STOOD: Final = "\x00request"


def split_table(uri: object) -> tuple[str, str, str]:
    """Return project, dataset and table of `bq://project.dataset.table`.

    Raises:
        ApiError: it is none.
    """
    parts = uri.removeprefix("bq://").split(".") if isinstance(uri, str) and uri.startswith("bq://") else []
    if len(parts) != 3 or not all(parts):
        raise ApiError(400, "[sandbox] A bq://project.dataset.table was expected.")
    return parts[0], parts[1], parts[2]


def write_input(tables: Tables, uri: object, path: Path, most_rows: int, *, at_once: bool = False) -> int:
    """Write the rows of a table to `path`, a line each, as a file of requests has them; returns how many.

    With `at_once`, none is looked at.

    Raises:
        ApiError: the table is not there, or a row is no request.
    """
    project, dataset, table = split_table(uri)
    tables.require_dataset(project, dataset)
    described = tables.describe(dataset, table)
    if described is None:
        raise ApiError(400, f"[sandbox] BigQuery table {uri} does not exist.")
    if not any(field.name == _REQUEST and field.type in ("STRING", "JSON") for field in described.fields):
        raise ApiError(400, "[sandbox] The table has no column `request` of type STRING or JSON.")
    wrong = [field.name for field in described.fields if field.type in _NOT_TAKEN or field.mode == "REPEATED"]
    if wrong:
        raise ApiError(400, f"[sandbox] The type of the column {wrong[0][:80]} is not supported.")
    if not 0 < described.rows <= most_rows:
        raise ApiError(400, f"[sandbox] The table has {described.rows:,} rows; 1 to {most_rows:,} are taken.")
    if at_once:
        path.touch()
        return described.rows
    with path.open("wb") as file:
        for number, row in enumerate(tables.stream(dataset, table), start=1):
            file.write(_line(row, number) + b"\n")
    return described.rows


def _line(row: dict[str, Any], number: int) -> bytes:
    text = row[_REQUEST]
    try:
        request = json.loads(text or "")
    except ValueError:
        request = None
    if not isinstance(request, dict):
        raise ApiError(400, f"[sandbox] Failed to import data: row {number} has no JSON object in `request`.")
    others = {name: value for name, value in row.items() if name != _REQUEST}
    return msgspec.json.encode({**others, _REQUEST: request, _AS_IT_STOOD: text}, enc_hook=str)


def write_output(
    tables: Tables, uri: str, source: object, answered: Iterable[Sequence[bytes]], moment: str
) -> tuple[int, int]:
    """Make the table of a job's answers, rows of it in no order; returns how many went well, and how many did not."""
    _, dataset, table = split_table(uri)
    _, source_dataset, source_table = split_table(source)
    described = tables.describe(source_dataset, source_table)
    names = [field.name for field in described.fields] if described is not None else ["key", _REQUEST]
    columns = [(name, "VARCHAR") for name in names]
    columns += [("status", "VARCHAR"), ("response", "VARCHAR"), ("processed_time", "TIMESTAMP WITH TIME ZONE")]
    count = failed = 0

    def counted() -> Iterator[list[Any]]:
        nonlocal count, failed
        for row in (row for texts in answered for row in _rows(texts, names, moment)):
            count, failed = count + 1, failed + bool(row[len(names)])
            yield row

    tables.add(dataset, table, columns, counted())
    return count - failed, failed


def answer_at_once(tables: Tables, uri: str, source: object, moment: str) -> int:
    """Make the table of a job's answers, the same one for every row; returns how many there are."""
    _, dataset, table = split_table(uri)
    _, source_dataset, source_table = split_table(source)
    text = {"role": "model", "parts": [{"text": "[sandbox] All alike."}]}
    usage = {"promptTokenCount": 10, "candidatesTokenCount": 8, "totalTokenCount": 18}
    response = {"candidates": [{"content": text, "finishReason": "STOP", "index": 0}], "usageMetadata": usage}
    columns = {"status": "", "response": json.dumps(response), "processed_time": moment}
    return tables.extend((source_dataset, source_table), (dataset, table), columns)


def _rows(texts: Sequence[bytes], names: Sequence[str], moment: str) -> Iterator[list[Any]]:
    for text in texts:
        try:
            row = json.loads(text)
        except ValueError:
            # A table has no lines that could break off: the answer stands there as it came.
            yield [None for _ in names] + ["", text.decode("utf-8", "replace"), moment]
            continue
        row[_REQUEST] = row.pop(_AS_IT_STOOD, None) or json.dumps(row.get(_REQUEST))
        response = json.dumps(row.get("response"), ensure_ascii=True)
        yield [*(_cell(row.get(name)) for name in names), row.get("status", ""), response, moment]


def _cell(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value)


def moment_of(create_ns: int) -> str:
    """Return the time that stands beside every answer of a job."""
    return timestamp(create_ns, 3)
