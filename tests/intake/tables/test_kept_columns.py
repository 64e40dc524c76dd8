"""The source's own columns, kept for the answers: every cell exactly as the prompt had it, in the same order."""

import csv
import json
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gemini_batch_mcp.domain import Order
from gemini_batch_mcp.errors import PathError, RequestProblems
from gemini_batch_mcp.intake.compose import write_rows
from gemini_batch_mcp.intake.tables.folders import list_folder
from gemini_batch_mcp.intake.tables.kept_columns import keeping_columns
from gemini_batch_mcp.intake.tables.memory import with_effort
from gemini_batch_mcp.intake.tables.reading import open_table
from gemini_batch_mcp.intake.tables.sql import RowKey, distinct_names
from gemini_batch_mcp.intake.template import Column, Template
from support.extent import in_part, tries
from support.sources import read


def keep(source: Path, destination: Path) -> str:
    """Keep the columns of a source, beside lines that nobody looks at; returns why they are not kept."""
    scratch = source.parent
    with (
        open_table(source, scratch, read_once=True) as table,
        keeping_columns(table, destination) as finish,
    ):
        count = with_effort(lambda effort: table.write_lines([RowKey(())], scratch / "lines", effort=effort))
        (scratch / "lines").unlink()
        return finish(count)


def kept(path: Path) -> tuple[list[str], list[tuple[Any, ...]]]:
    with duckdb.connect() as engine:
        rows = engine.execute(f"SELECT * FROM read_parquet('{path}') ORDER BY row")
        names = [str(name) for name, *_ in rows.description or ()]
        kinds = {str(kind) for _, kind, *_ in rows.description[1:] or ()}
        assert kinds == {"VARCHAR"}
        return names, rows.fetchall()


def test_columns_are_kept_as_they_are_written_beside_the_number_of_the_row(tmp_path: Path) -> None:
    source = tmp_path / "t.csv"
    source.write_text('id,n,"the, text"\na,007,"line\nbreak ""q"""\nb,1.10,\n,2024-01-02,ü\n', encoding="utf-8")

    assert keep(source, tmp_path / "c.parquet") == ""
    assert kept(tmp_path / "c.parquet") == (
        ["row", "id", "n", "the, text"],
        [(1, "a", "007", 'line\nbreak "q"'), (2, "b", "1.10", ""), (3, "", "2024-01-02", "ü")],
    )
    assert {path.name for path in tmp_path.iterdir()} == {"t.csv", "c.parquet"}


def test_row_n_is_line_n_of_the_request_file(tmp_path: Path) -> None:
    source = tmp_path / "t.jsonl"
    source.write_text("".join(json.dumps({"id": f"k{n}", "n": n}) + "\n" for n in range(5000)), encoding="utf-8")
    order = Order(prompt="{{n}}", key_column="id", limit_rows=3000)

    columns_path = tmp_path / "c.parquet"
    written = write_rows(source, tmp_path / "r", order=order, keys_path=tmp_path / "k", columns_path=columns_path)
    assert written.columns_path == columns_path

    keys = [json.loads(line) for line in (tmp_path / "k").read_text(encoding="utf-8").splitlines()]
    assert [(number, key) for number, key, _ in kept(tmp_path / "c.parquet")[1]] == list(enumerate(keys, 1))
    assert len(keys) == 3000


@pytest.mark.parametrize(
    ("columns", "names"),
    [
        (("a", "b"), ("a", "b")),
        (("row", "Row", "a"), ("row_2", "Row_3", "a")),
        (("Name", "name", "NAME"), ("Name", "name_2", "NAME_3")),
        (("a", "A", "a_2"), ("a", "A_3", "a_2")),
        (("straße", "STRASSE"), ("straße", "STRASSE_2")),
    ],
)
def test_names_that_readers_of_parquet_cannot_tell_apart_get_a_number(
    tmp_path: Path, columns: tuple[str, ...], names: tuple[str, ...]
) -> None:
    assert distinct_names(columns) == names
    with (tmp_path / "t.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([columns, [f"v{number}" for number, _ in enumerate(columns)]])

    assert keep(tmp_path / "t.csv", tmp_path / "c.parquet") == ""
    found, rows = kept(tmp_path / "c.parquet")
    assert found == ["row", *names]
    assert rows == [(1, *(f"v{number}" for number, _ in enumerate(columns)))]


NAMES = st.text(st.sampled_from('abA_2"row ;日'), min_size=1, max_size=5)


@in_part
@settings(max_examples=tries(200, 60))
@given(columns=st.lists(NAMES, min_size=1, max_size=12, unique=True))
def test_whatever_columns_are_called_their_names_are_distinct(columns: list[str]) -> None:
    names = distinct_names(columns)

    folded = [name.casefold() for name in names]
    assert len(set(folded)) == len(columns)
    assert "row" not in folded
    unclear = [column for column in columns if [c.casefold() for c in columns].count(column.casefold()) > 1]
    assert all(name == column for name, column in zip(names, columns, strict=True) if column not in (*unclear, "row"))


CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)


@in_part
@settings(max_examples=tries(40, 8), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=5))
def test_every_cell_is_kept_exactly(tmp_path: Path, rows: list[tuple[str, str]]) -> None:
    source = tmp_path / "t.csv"
    with source.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows([("a", "b"), *rows])

    keep(source, tmp_path / "c.parquet")

    assert [list(row[1:]) for row in kept(tmp_path / "c.parquet")[1]] == read(source)[1]


def test_nested_and_typed_parquet_is_kept_as_the_text_that_a_prompt_would_have(tmp_path: Path) -> None:
    with duckdb.connect() as engine:
        engine.execute(
            "COPY (SELECT 1.50::DECIMAL(4,2) AS price, {'a': [1, 2]} AS nested, DATE '2024-01-02' AS day, "
            f"NULL::INT AS none, 'x'::BLOB AS raw) TO '{tmp_path / 't.parquet'}'"
        )

    keep(tmp_path / "t.parquet", tmp_path / "c.parquet")

    assert kept(tmp_path / "c.parquet") == (
        ["row", "price", "nested", "day", "none", "raw"],
        [(1, "1.50", '{"a":[1,2]}', "2024-01-02", "", "eA==")],
    )


@pytest.mark.parametrize("prompt", ["What is {{path}}?", "What says {{text}}?"])
def test_of_a_folder_paths_and_names_are_kept_and_contents_are_not(tmp_path: Path, prompt: str) -> None:
    (tmp_path / "in" / "sub").mkdir(parents=True)
    (tmp_path / "in" / "a.txt").write_text("the content", encoding="utf-8")
    (tmp_path / "in" / "sub" / "b.txt").write_bytes(b"more")

    folder, columns_path = list_folder(tmp_path / "in", "**"), tmp_path / "c.parquet"
    order = Order(prompt=prompt)
    write_rows(folder, tmp_path / "r", order=order, keys_path=tmp_path / "k", columns_path=columns_path)

    assert kept(columns_path) == (["row", "path", "name"], [(1, "a.txt", "a.txt"), (2, "sub/b.txt", "b.txt")])


@in_part
def test_wide_and_large_rows_are_kept(tmp_path: Path) -> None:
    source, columns = tmp_path / "t.csv", tries(2000, 700)
    with source.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([f"c{number}" for number in range(columns)])
        writer.writerow(["x" * (5 << 20), *range(1, columns)])
        writer.writerow(["small", *range(1, columns)])

    keep(source, tmp_path / "c.parquet")

    names, rows = kept(tmp_path / "c.parquet")
    assert (len(names), len(rows), len(rows[0][1]), rows[1][1:3]) == (columns + 1, 2, 5 << 20, ("small", "1"))


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.json", "t.jsonl", "t.txt", "t.parquet"])
def test_lines_and_columns_are_written_from_one_look_at_the_source(tmp_path: Path, name: str) -> None:
    """It is reversed in its place as soon as it has been looked at: what is written is what it was, on both sides."""
    source, texts = tmp_path / name, [f"text {number}" for number in range(5000)]

    def write(texts: list[str]) -> None:
        rows = {
            ".json": json.dumps([{"text": text} for text in texts]),
            ".jsonl": "".join(json.dumps({"text": text}) + "\n" for text in texts),
            ".txt": "".join(text + "\n" for text in texts),
            ".parquet": "".join(json.dumps({"text": text}) + "\n" for text in texts),
        }.get(source.suffix, "text\n" + "".join(text + "\n" for text in texts))
        if source.suffix == ".parquet":
            (tmp_path / "rows.json").write_text(rows, encoding="utf-8")
            duckdb.execute(f"COPY (FROM '{tmp_path / 'rows.json'}') TO '{source}' (FORMAT parquet)")
        else:
            source.write_text(rows, encoding="utf-8")

    write(texts)
    with open_table(source, tmp_path, read_once=True) as table:
        write(texts[::-1])
        with keeping_columns(table, tmp_path / "c.parquet") as finish:
            count = table.write_lines([Template((Column("text"),))], tmp_path / "lines")
            assert (count, finish(count)) == (5000, "")

    lines = [json.loads(line) for line in (tmp_path / "lines").read_text(encoding="utf-8").splitlines()]
    assert lines == [text for _, text in kept(tmp_path / "c.parquet")[1]] == texts


def test_a_source_that_cannot_be_read_is_refused_and_leaves_no_columns(tmp_path: Path) -> None:
    (tmp_path / "ragged.csv").write_text("a,b\n1,2\n3\n", encoding="utf-8")
    (tmp_path / "c.parquet").write_bytes(b"of another time")

    with pytest.raises(RequestProblems):
        keep(tmp_path / "ragged.csv", tmp_path / "c.parquet")
    with pytest.raises(PathError):
        keep(tmp_path / "gone.csv", tmp_path / "c.parquet")
    assert {path.name for path in tmp_path.iterdir()} <= {"ragged.csv", "lines"}


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_columns_that_cannot_be_written_cost_no_line(tmp_path: Path, name: str) -> None:
    duckdb.execute(f"COPY (SELECT range AS a FROM range(3)) TO '{tmp_path / name}'")
    # Under this name the engine cannot write.
    (tmp_path / "c.parquet.part").mkdir()
    columns_path = tmp_path / "c.parquet"

    written = write_rows(
        tmp_path / name,
        tmp_path / "r",
        order=Order(prompt="{{a}}"),
        keys_path=tmp_path / "k",
        columns_path=columns_path,
    )

    assert (written.count, written.columns_path) == (3, None)
    assert any("will not be shown beside the answers" in warning for warning in written.warnings)
    assert {path.name for path in tmp_path.iterdir()} == {name, "r", "k", "c.parquet.part"}


def test_columns_that_are_not_wanted_any_more_leave_nothing(tmp_path: Path) -> None:
    source = tmp_path / "t.parquet"
    duckdb.execute(f"COPY (SELECT range AS a, repeat('x', 200) AS b FROM range(200000)) TO '{source}'")

    with (
        pytest.raises(ZeroDivisionError),
        open_table(source, tmp_path, read_once=True) as table,
        keeping_columns(table, tmp_path / "c.parquet"),
    ):
        raise ZeroDivisionError
    assert [path.name for path in tmp_path.iterdir()] == ["t.parquet"]
