"""Tables, filled at once, on which our statements are run as they are: in the sandbox's BigQuery, and in GoogleSQL."""

import json
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from gemini_batch_mcp.sandbox.cloud._tables import Tables
from gemini_batch_mcp.sandbox.config import SandboxConfig
from gemini_batch_mcp.warehouse.statements import TableName

#: What `make reference` makes.
_PYTHON: Final = Path(__file__).parents[3] / ".venv-reference/bin/python"
#: Types of GoogleSQL by those of DuckDB.
_TYPES: Final = {"VARCHAR": "STRING", "BIGINT": "INT64", "BOOLEAN": "BOOL", "DOUBLE": "FLOAT64", "(": "<", ")": ">"}


class Warehouse(Protocol):
    """Tables of one dataset."""

    def close(self) -> None:
        """Let go of the store."""

    def table(self, name: str) -> TableName:
        """Return the name of a table, be it there or not."""

    def load(self, name: str, types: Mapping[str, str], rows: Iterable[Sequence[Any]]) -> TableName:
        """Make a table of rows; `types` are DuckDB's, by column."""

    def run(self, sql: str) -> list[dict[str, Any]]:
        """Run a statement of ours; return its rows."""

    def rows(self, table: TableName) -> list[dict[str, Any]]:
        """Return all rows of a table."""


class GoogleSql:
    """Tables in Google's own implementation of GoogleSQL, in a process of its own."""

    is_installed = (_PYTHON.parent.parent / "lib").exists() and bool(
        list(_PYTHON.parent.parent.glob("lib/*/site-packages/zetasql"))
    )

    def __init__(self) -> None:
        engine = Path(__file__).with_name("_googlesql.py")
        self._process = subprocess.Popen(
            [_PYTHON, engine], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
        )

    def close(self) -> None:
        """Forget all tables."""
        self._ask("clear")

    def end(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()

    def table(self, name: str) -> TableName:
        """Return the name of a table, be it there or not."""
        return TableName("sandbox-project", "sandbox_data", name)

    def load(self, name: str, types: Mapping[str, str], rows: Iterable[Sequence[Any]]) -> TableName:
        """Make a table of rows; `types` are DuckDB's, by column."""
        kinds = dict(types)
        for ours, theirs in _TYPES.items():
            kinds = {column: kind.replace(ours, theirs) for column, kind in kinds.items()}
        self._ask("load", str(self.table(name)), kinds, [list(row) for row in rows])
        return self.table(name)

    def run(self, sql: str) -> list[dict[str, Any]]:
        """Run a statement of ours; return its rows."""
        return list(self._ask("run", sql))

    def rows(self, table: TableName) -> list[dict[str, Any]]:
        """Return all rows of a table."""
        return list(self._ask("rows", str(table)))

    def _ask(self, *call: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(call), file=self._process.stdin, flush=True)
        reply = json.loads(self._process.stdout.readline())
        assert "error" not in reply, reply["error"]
        return reply["found"]


class Sandboxed:
    """The same in the sandbox, with DuckDB. `directory` is for the store and for what is loaded."""

    def __init__(self, directory: Path) -> None:
        config = SandboxConfig()
        self._directory = directory
        self._project, self._dataset = config.cloud_project, sorted(config.datasets)[0]
        self._tables = Tables(directory, config)

    def close(self) -> None:
        """Let go of the store."""
        self._tables.close()

    def table(self, name: str) -> TableName:
        """Return the name of a table, be it there or not."""
        return TableName(self._project, self._dataset, name)

    def load(self, name: str, types: Mapping[str, str], rows: Iterable[Sequence[Any]]) -> TableName:
        """Make a table of rows; `types` are DuckDB's, by column."""
        path = self._directory / f"{name}.jsonl"
        path.write_text(
            "".join(json.dumps(dict(zip(types, row, strict=True))) + "\n" for row in rows), encoding="utf-8"
        )
        columns = ", ".join(f"'{column}': '{kind}'" for column, kind in types.items())
        self._tables.put(
            self._dataset,
            name,
            f"SELECT * FROM read_json('{path}', format = 'newline_delimited', columns = {{{columns}}})",
        )
        return self.table(name)

    def run(self, sql: str) -> list[dict[str, Any]]:
        """Run a statement of ours; return its rows."""
        found = self._tables.run(sql)
        return [dict(zip((field.name for field in found.fields), row, strict=True)) for row in found.rows]

    def rows(self, table: TableName) -> list[dict[str, Any]]:
        """Return all rows of a table."""
        return self._tables.rows(table.dataset, table.table)
