"""Cells of every type become the text that they are in a file of the same rows, byte by byte."""

import json
import math
import random
import struct
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import duckdb
import pytest

from gemini_batch_mcp.domain import Order
from gemini_batch_mcp.intake.compose import write_rows
from gemini_batch_mcp.warehouse.statements import SourceColumn, keep_rows, plan_rows, write_requests
from support.cloud.warehouse import GoogleSql, Warehouse
from support.extent import WANTED, in_part, tries
from warehouse.test_orders import CHARACTERS, by_key

ROWS: Final = tries(10_000, 200)
pytestmark = pytest.mark.timeout(3600 if WANTED else 300)
#: Columns by their types: what makes a value of the text (or number) that a row is given, there and in Parquet.
MADE: Final[dict[str, tuple[str, str, str]]] = {
    "real": ("FLOAT64", "real", "real"),
    "day": ("DATE", "CAST(day AS DATE)", "CAST(day AS DATE)"),
    "clock": ("TIME", "CAST(clock AS TIME)", "CAST(clock AS TIME)"),
    "moment": ("DATETIME", "CAST(moment AS DATETIME)", "CAST(moment AS TIMESTAMP)"),
    "at": ("TIMESTAMP", "CAST(`at` AS TIMESTAMP)", """CAST("at" AS TIMESTAMPTZ)"""),
    "raw": ("BYTES", "CAST(raw AS BYTES)", "encode(raw)"),
}
#: Those whose one spelling no file has, each beside what we say that it is.
SPELLED: Final = {
    "price": ("NUMERIC", "CAST(price AS NUMERIC)"),
    "big": ("BIGNUMERIC", "CAST(big AS BIGNUMERIC)"),
    "doc": ("JSON", "PARSE_JSON(doc, wide_number_mode => 'round')"),
    "words": ("ARRAY<STRING>", "words"),
    "person": ("STRUCT<name STRING, age INT64, ok BOOL, tags ARRAY<STRING>>", "person"),
}
NUMBERS: Final = (0.0, 1.0, -1.5, 0.1, 0.1 + 0.2, 0.1 + 0.7, 1e15, 1e15 + 0.5, 1e16, 1e17, 9.1e22, 1e-4, 1e-5, 1 / 3)
ENDS: Final = (2.0**53, 2.0**53 + 2, 1.7976931348623157e308, 2.2250738585072014e-308, math.inf, -math.inf, math.nan)
WHOLE: Final = (None, 0, -7, 2**53, 2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63))
ORDER: Final = Order(
    prompt=" ".join(f"{name}={{{{{name}}}}}" for name in ("text", *MADE, *SPELLED)), key_column="id", source="-"
)


class Chance(random.Random):
    """Values of each type, hostile ones among them; None now and then."""

    def text(self, most: int = 6) -> str:
        return "".join(self.choices(CHARACTERS, k=self.randrange(most)))

    def number(self) -> float:
        match self.randrange(4):
            case 0:
                return self.choice(NUMBERS + ENDS)
            case 1:
                found = struct.unpack("<d", self.randbytes(8))[0]
                # Below the smallest of these, digits run out: SQL says more of them than others.
                return float(found) if abs(found) >= ENDS[3] else 0.5
            case 2:
                return round(self.uniform(-1e6, 1e6), self.randrange(6)) or 0.5
        return self.uniform(-1, 1) * 10.0 ** self.randrange(-20, 20)

    def decimal(self, whole: int, behind: int) -> str:
        digits = str(self.randrange(10 ** self.randrange(whole + 1)))
        part = "".join(self.choices("0123456789", k=self.randrange(behind + 1)))
        return f"{self.choice(['', '-'])}{digits}{'.' if part else ''}{part}"

    def day(self) -> str:
        year = self.choice([1, 99, 1582, 1900, 1969, 1970, 2026, 9999])
        return f"{year:04}-{self.randrange(1, 13):02}-{self.randrange(1, 29):02}"

    def clock(self) -> str:
        part = self.choice(["", f".{self.randrange(1, 10**6):06}", f".{self.randrange(1, 1000):03}", ".500000", ".007"])
        return f"{self.randrange(24):02}:{self.randrange(60):02}:{self.randrange(60):02}{part}"

    def document(self) -> Any:
        inner = {self.choice("abcdefgh"): self.choice([None, True, 1.5, self.text(), self.choice(WHOLE)])}
        return self.choice([self.text(), inner, [inner, self.text()], self.choice(WHOLE), {}, [], False])


def rows(count: int) -> list[dict[str, Any]]:
    chance = Chance(11)

    def row(number: int) -> dict[str, Any]:
        person = {"name": chance.text(), "age": chance.choice(WHOLE), "ok": chance.choice([True, False, None])}
        cells = {
            "text": chance.text(),
            "real": chance.number(),
            "day": chance.day(),
            "clock": chance.clock(),
            "moment": f"{chance.day()} {chance.clock()}",
            "at": f"{chance.day()} {chance.clock()}+00",
            "raw": chance.text(),
            "price": chance.decimal(28, 9),
            "big": chance.decimal(38, 38),
            "doc": json.dumps(chance.document()),
            "words": [chance.text() for _ in range(chance.randrange(4))],
            "person": person | {"tags": [chance.text() for _ in range(chance.randrange(3))]},
        }
        return {"id": f"k{number}"} | {name: cell if chance.random() > 0.05 else None for name, cell in cells.items()}

    return [row(number) for number in range(count)]


def spelled(name: str, value: Any) -> str | None:
    """Return what we say that SQL writes for a value of a type whose spelling is its own."""
    if value is None:
        return None
    if name in ("price", "big"):
        text = format(Decimal(value), "f")
        text = text.rstrip("0").rstrip(".") if "." in text else text
        return "0" if text in ("-0", "") else text
    found = json.loads(value) if name == "doc" else value
    if found is None or isinstance(found, str):
        return found
    if name == "doc":
        return json.dumps(found, ensure_ascii=False, separators=(",", ":"))
    text = json.dumps(_as_nested(found), ensure_ascii=False, separators=(",", ":"))
    return text.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _as_nested(value: Any) -> Any:
    """Return a value in which whole numbers that not everybody reads exactly are texts."""
    match value:
        case dict():
            return {name: _as_nested(inner) for name, inner in value.items()}
        case int() if abs(value) > 2**53:
            return str(value)
    return value


@in_part
def test_requests_of_cells_of_every_type_are_those_of_a_file_byte_by_byte(
    google_sql: GoogleSql, tmp_path: Path
) -> None:
    given = rows(ROWS)
    written = by_type(google_sql, given)

    expected = from_parquet(given, tmp_path)

    assert len(expected) == ROWS
    assert [(key, written[key], request) for key, request in expected.items() if written[key] != request] == []


def by_type(warehouse: Warehouse, given: list[dict[str, Any]]) -> dict[str, str]:
    """Return the requests of these rows by their keys, as SQL writes them."""
    kinds = dict.fromkeys(given[0], "STRING") | {"real": "FLOAT64"}
    kinds |= {name: SPELLED[name][0] for name in ("words", "person")}
    raw = warehouse.load("raw", kinds, [list(row.values()) for row in given])
    made = {name: sql for name, (_, sql, _) in MADE.items()} | {name: sql for name, (_, sql) in SPELLED.items()}
    source, kept, requests = (warehouse.table(name) for name in ("source", "kept", "requests"))
    columns = ", ".join(f"{sql} AS `{name}`" for name, sql in made.items())
    warehouse.run(f"CREATE TABLE {source.quoted} AS SELECT id, text, {columns} FROM {raw.quoted}")
    types = {name: kind for name, (kind, *_) in MADE.items()} | {name: kind for name, (kind, _) in SPELLED.items()}
    described = [SourceColumn(name, types.get(name, "STRING")) for name in given[0]]
    plan = plan_rows(replace(ORDER, source=source.uri), source, described)
    for statement in (keep_rows(plan, kept), write_requests(plan, kept, requests)):
        assert warehouse.run(statement) == []
    return {row["key"]: row["request"] for row in warehouse.rows(requests)}


def from_parquet(given: list[dict[str, Any]], directory: Path) -> dict[str, str]:
    """Return the requests of the same rows in a Parquet file, as this machine writes them."""
    path, table = directory / "rows.jsonl", directory / "rows.parquet"
    with path.open("w", encoding="utf-8") as file:
        for row in given:
            told = {name: spelled(name, cell) if name in SPELLED else cell for name, cell in row.items()}
            real = None if told["real"] is None else repr(told["real"])
            file.write(json.dumps(told | {"real": real}) + "\n")
    texts = ", ".join(f"'{name}': 'VARCHAR'" for name in given[0])
    cells = {name: f'"{name}"' for name in given[0]} | {name: sql for name, (*_, sql) in MADE.items()}
    cells["real"] = "CAST(real AS DOUBLE)"
    columns = ", ".join(f'{sql} AS "{name}"' for name, sql in cells.items())
    read = f"read_json('{path}', format = 'newline_delimited', columns = {{{texts}}})"
    with duckdb.connect() as database:
        database.execute("SET TimeZone = 'UTC'")
        database.execute(f"COPY (SELECT {columns} FROM {read}) TO '{table}' (FORMAT parquet)")
    write_rows(table, directory / "lines", order=replace(ORDER, source=str(table)), keys_path=directory / "keys")
    return by_key(directory / "lines")
