"""Answer files, the tables made of them, queries over these, and reports read back."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from gemini_batch_mcp.domain import Job, JobState, ResultRow, ResultSummary, RowCounts
from gemini_batch_mcp.results.engine import identifier, rows_of
from gemini_batch_mcp.results.query._worker import Query, QueryAnswer, run_query
from gemini_batch_mcp.results.report.writing import ReportCost, ReportFacts, write_report
from gemini_batch_mcp.results.store import AnswerFile, ResultTable, TablePlan, build_planned, build_table
from support.loading import READER, scratch


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
    destination = directory / "results.json"
    build_table([AnswerFile(answer_file(directory, content), keys_path)], destination, expected_rows=expected_rows)
    return ResultTable.open(destination, READER)


def planned(
    directory: Path, content: bytes | Sequence[bytes], *, keys: Sequence[str] | None, **plan: Any
) -> ResultTable:
    """Build the table of one answer file as a plan with these members says, and open it."""
    keys_path = None if keys is None else keys_file(directory, keys)
    answers = (AnswerFile(answer_file(directory, content), keys_path),)
    return rebuilt(directory, TablePlan(answers, **plan))


def rebuilt(directory: Path, plan: TablePlan) -> ResultTable:
    """Build what is planned, and open it."""
    build_planned(plan, directory / "results.json")
    return ResultTable.open(directory / "results.json", READER)


def source_file(directory: Path, columns: Mapping[str, Sequence[str | None]]) -> Path:
    """Write the columns of a user's table as intake does: text, beside the number of the row."""
    path = directory / "source.parquet"
    height = max(map(len, columns.values()))
    names = ", ".join(f"{identifier(name)} VARCHAR" for name in columns)
    with scratch() as connection:
        connection.execute(f"CREATE TEMPORARY TABLE source (row BIGINT, {names})")
        marks = ", ".join("?" * (1 + len(columns)))
        rows = [[row + 1, *(column[row] for column in columns.values())] for row in range(height)]
        connection.executemany(f"INSERT INTO source VALUES ({marks})", rows)
        connection.execute(f"COPY source TO '{path}' (FORMAT parquet)")
    return path


def cells(table: ResultTable, sql: str) -> list[tuple[Any, ...]]:
    """Run a query over the table, which is called `results` in it."""
    with scratch() as connection:
        connection.execute(f"CREATE TEMPORARY VIEW results AS FROM {rows_of(table.folder)}")
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


def rows_apart(directory: Path, contents: Sequence[bytes]) -> list[ResultRow]:
    """Return the rows of lines that have the key "a" each, in one table, in which each has a key of its own."""
    keys = [f"a{number}" for number in range(len(contents))]
    lines = [
        content.replace(b'"key": "a"', b'"key": "%b"' % key.encode())
        for key, content in zip(keys, contents, strict=True)
    ]
    rows = all_rows(table_of(directory, b"".join(lines), keys=keys))
    assert [row.key for row in rows] == keys
    return rows


def exported(table: ResultTable, directory: Path) -> list[dict[str, Any]]:
    """Export a table and read it back as strict JSON."""
    path = table.export(directory / "export.jsonl", "jsonl").path
    return [json.loads(text, parse_constant=_refuse) for text in path.read_bytes().split(b"\n")[:-1]]


def status_sum(summary: ResultSummary) -> int:
    """Return how many rows have a status."""
    return summary.succeeded + summary.failed + summary.blocked + summary.truncated + summary.empty + summary.missing


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


WHEN = datetime(2026, 11, 21, 16, 4, tzinfo=UTC)

#: Texts that would do harm, or hide something, if they were taken for anything but text.
HOSTILE = (
    "<script>window.hacked = true; alert(1)</script>",
    "</script><script>window.hacked = true; alert(1)</script>",
    '<img src=x onerror="window.hacked = true; alert(1)">',
    "<svg onload=alert(1)><style>body{display:none}</style>",
    "<!-- <script> --> ]]> &lt;b&gt; &amp; &#x41;",
    "{{title}} ${body} %(rows)s {0} $rows \\u003c",
    "\u202eright to left\u202c \u2066isolated\u2069",
    "zero\u200bwidth\u200d\ufeff",
    "nul\x00 bell\x07 escape\x1b[31m",
    "line\nbreak\u2028separator",
    "http://attacker.example/pixel.gif javascript:alert(1)",
    "\"'`=<>",
)


@dataclass
class Page:
    """What a page says: its visible words, its elements with their attributes, and the parts that are no markup."""

    source: str
    words: str = ""
    elements: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    style: str = ""
    script: str = ""
    title: str = ""
    data: dict[str, Any] = field(default_factory=dict)

    def named(self, name: str) -> list[dict[str, str]]:
        """Return the attributes of all elements of that name."""
        return [attributes for element, attributes in self.elements if element == name]


class _Reader(HTMLParser):
    def __init__(self, page: Page) -> None:
        super().__init__(convert_charrefs=True)
        self.page = page
        self._inside: list[tuple[str, dict[str, str]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        self.page.elements.append((tag, attributes))
        if tag not in ("meta", "link", "input"):
            self._inside.append((tag, attributes))

    def handle_endtag(self, tag: str) -> None:
        opened, _ = self._inside.pop()
        assert opened == tag, f"{tag} closes {opened}"

    def handle_data(self, data: str) -> None:
        tag, attributes = self._inside[-1] if self._inside else ("", {})
        if tag == "style":
            self.page.style += data
        elif tag == "script" and attributes.get("type") == "application/json":
            self.page.data = json.loads(data)
        elif tag == "script":
            self.page.script += data
        elif tag == "title" and len(self._inside) == 3:
            self.page.title += data
        else:
            self.page.words += data

    def check_closed(self) -> None:
        assert self._inside == []


def read_page(path: Path) -> Page:
    """Read a page; every element must be closed in its place."""
    page = Page(path.read_text(encoding="utf-8"))
    reader = _Reader(page)
    reader.feed(page.source)
    reader.close()
    reader.check_closed()
    return page


def facts(**members: Any) -> ReportFacts:
    """Return the facts of an ordinary batch; `members` replace them."""
    whole: dict[str, Any] = {
        "batch_id": "reviews-k3v9qd",
        "state": JobState.SUCCEEDED,
        "display_name": "Reviews of the autumn",
        "model": "gemini-3.8-flash",
        "created_at": WHEN,
        "ended_at": WHEN + timedelta(hours=2, minutes=14),
        "written_at": WHEN + timedelta(days=1),
        "jobs": (Job("batches/first", JobState.SUCCEEDED, counts=RowCounts(10, 8, 2, 0)),),
        "cost": ReportCost(1.8342, 1.21, 2.4, "2026-11-22", "List prices of the batch tier."),
    }
    return ReportFacts(**whole | members)


def hostile_lines() -> list[bytes]:
    """Return answers, errors and keys made of hostile texts, one cell of a megabyte, and two rows without harm."""
    answers = [answer(f"answer {number} {text}", text) for number, text in enumerate(HOSTILE)]
    errors = [failure(f"error {number} {text}", text) for number, text in enumerate(HOSTILE)]
    strange = answer("strange", "fine", finish_reason=HOSTILE[0], modelVersion=HOSTILE[1] + "\x00")
    surrogate = b'{"key":"surrogate","response":{"candidates":[{"content":{"parts":[{"text":"lone \\ud800"}]}}]}}\n'
    plain = [answer("needle", "the Needle of this row"), answer("cut", "Cut", finish_reason="MAX_TOKENS")]
    return [*answers, *errors, strange, surrogate, answer("huge", "<" * 1_000_000), *plain]


def hostile_facts() -> ReportFacts:
    """Return facts in which every text is hostile."""
    job = Job(f"batches/{HOSTILE[2]}", JobState.RUNNING, error=None)
    return facts(
        batch_id=HOSTILE[1],
        display_name=f"</title>{HOSTILE[0]}\ud800\u202e",
        model=HOSTILE[2],
        jobs=(job,),
        cost=ReportCost(0.0003, 0.0001, 0.0002, HOSTILE[4], HOSTILE[8]),
    )


def hostile_page(directory: Path) -> Path:
    """Write the page of a batch in which everything is hostile: texts, names of columns and fields, their values."""
    table = hostile_table(directory)
    path = directory / "hostile.html"
    write_report(hostile_facts(), table, path)
    return path


def hostile_table(directory: Path) -> Path:
    """Write a table of hostile answers beside hostile columns of the source, with hostile fields and a history."""
    table = table_of(directory, [*hostile_lines(), *(answer(f"more {number}") for number in range(20))])
    names = [identifier("error_message" if column.name == "error" else column.name) for column in table.columns]
    key, after = names.index('"key"'), names.index('"json"') + 1

    def made(numbers: Sequence[int], every: int) -> list[str]:
        return [f"{_any_of(HOSTILE[one:] + HOSTILE, every)} AS {identifier(HOSTILE[one])}" for one in numbers]

    entry = "struct_pack(attempt := {}, status := '{}', error_code := 0, error_message := '', finish_reason := '')"
    history = f"CASE WHEN row % 3 = 0 THEN [{entry.format(1, 'failed')}, {entry.format(2, 'ok')}] END AS history"
    selected = [*names[:key], *made((0, 2, 7), 3), *names[key:after], *made((1, 3, 4, 6), 4)]
    selected += [f"(row * 0.37)::DOUBLE AS {identifier(HOSTILE[11])}", *names[after:], history]
    return table_at(directory / "hostile.parquet", f"SELECT {', '.join(selected)} FROM {rows_of(table.folder)}")


def _any_of(texts: Sequence[str], count: int) -> str:
    """Return the SQL that takes one of the first texts, by the row; a statement takes no NUL."""
    quoted = (text.replace("'", "''").replace("\x00", "' || chr(0) || '") for text in texts[:count])
    listed = "', '".join(quoted)
    return f"(['{listed}'])[1 + row % {count}]"


#: In every file that a query must not read.
CANARY = "canary-5d1f2c"

#: The columns that every result table has, and two of a user's own table.
ROWS = """
    SELECT i + 1 AS row, 'k' || i AS key, CASE i % 10 WHEN 0 THEN 'failed' ELSE 'ok' END AS status,
           'answer ' || i AS text, 'STOP' AS finish_reason, CASE i % 10 WHEN 0 THEN 13 END AS error_code,
           '' AS error_message, 'gemini-3.8-flash' AS model_version, 3 AS input_tokens, 4 AS output_tokens,
           0 AS thoughts_tokens, 1 AS attempt, 0 AS file, i AS line,
           (['red', 'green', 'blue'])[i % 3 + 1] AS product, i / 4.0 AS "Unit Price"
    FROM range(1000) numbers(i)
"""


def table_at(path: Path, select: str = ROWS) -> Path:
    """Write what `select` finds as a Parquet file."""
    with scratch() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(f"COPY ({select}) TO '{str(path).replace(chr(39), chr(39) * 2)}' (FORMAT parquet)")
    return path


def ask(
    table: Path,
    sql: str,
    *,
    limit: int = 100,
    time_limit_seconds: float = 20.0,
    memory_limit_bytes: int = 512 << 20,
    max_cell_chars: int = 2000,
    max_chars: int = 17_000,
    also: Mapping[str, Path] | None = None,
) -> QueryAnswer:
    """Run a query in this process, which is quicker than in one of its own."""
    tables = {name: str(path) for name, path in ({"results": table} | dict(also or {})).items()}
    return run_query(Query(tables, sql, limit, time_limit_seconds, memory_limit_bytes, max_cell_chars, max_chars))
