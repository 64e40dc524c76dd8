"""Queries that try to read, write or learn what is not in the table: refused by either wall, and nothing changed."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from gemini_batch_mcp.errors import UsageError
from gemini_batch_mcp.results.query._database import locked_database
from gemini_batch_mcp.results.query.queries import QueryEngine
from support.answers import CANARY, ROWS, table_at
from support.extent import few, in_part, pairs, part
from support.statements import HARMLESS, REFUSED


@pytest.fixture(scope="module")
def engine() -> Iterator[QueryEngine]:
    with QueryEngine() as engine:
        yield engine


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory full of secrets, with the table in a directory below it."""
    place = tmp_path_factory.mktemp("place")
    (place / "secret.csv").write_text(f"name\n{CANARY}\n", encoding="utf-8")
    (place / "secret.json").write_text(json.dumps([{"name": CANARY}]), encoding="utf-8")
    (place / "evil.duckdb_extension").write_bytes(b"\x7fELF" + CANARY.encode())
    table_at(place / "secret.parquet", f"SELECT '{CANARY}' AS name")
    with duckdb.connect(str(place / "secret.db")) as connection:
        connection.execute(f"CREATE TABLE secret AS SELECT '{CANARY}' AS name")
    (place / "batch").mkdir()
    table_at(place / "batch" / "results.parquet")
    (place / "batch" / "results-1").mkdir()
    for piece in range(2):
        rows = f"FROM ({ROWS}) LIMIT 500 OFFSET {500 * piece}"
        table_at(place / "batch" / "results-1" / f"{piece}.parquet", rows)
    (place / "batch" / "results-1" / "secret.json").write_text(json.dumps([{"name": CANARY}]), encoding="utf-8")
    return place


def _state(place: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(place.rglob("*")) if path.is_file()}


def _assert_nothing_leaks(text: str, place: Path, sql: str) -> None:
    assert CANARY not in text
    # What the query itself says may come back; the place of the table may not.
    assert str(place) not in text or str(place) in sql
    assert "results.parquet" not in text or "results.parquet" in sql


def _assert_works(engine: QueryEngine, table: Path) -> None:
    answer = engine.query_table(table, "SELECT status, count(*) FROM results GROUP BY ALL ORDER BY ALL")
    assert answer.rows == (("failed", 100), ("ok", 900))


#: After which a query is tried: in a run of a part every so many-th, as it takes as long as the refusal.
FOLLOWED = frozenset(part(REFUSED, 15))


def _with_others(place: Path) -> dict[str, Path]:
    """The table, and beside it two of other batches: one in parts, and one whose name has to be quoted."""
    batch = place / "batch"
    return {
        "results": batch / "results.parquet",
        "labels_sf6epe": batch / "results-1",
        "2026_x_k3m9pq": batch / "results.parquet",
    }


@in_part
@few(100, more=400)
@pytest.mark.parametrize(("attack", "read"), pairs(REFUSED, ["results", "labels_sf6epe"]))
def test_an_escape_is_refused_and_the_next_query_works(
    engine: QueryEngine, place: Path, attack: str, read: str
) -> None:
    """From the one table, and from one that a query has beside it: what it names `results` is that one then."""
    table = place / "batch" / "results.parquet"
    before = _state(place)
    sql = re.sub(r"\bresults\b", read, attack.replace("{place}", str(place))).replace("{table}", str(table))
    tables = {"results": table} if read == "results" else _with_others(place)
    with pytest.raises(UsageError) as refusal:
        engine.query_tables(tables, sql)
    assert refusal.value.next_step
    assert len(str(refusal.value)) < 2500
    assert str(refusal.value).isprintable()
    assert "engine ended" not in str(refusal.value)
    _assert_nothing_leaks(str(refusal.value), place, sql)
    if attack in FOLLOWED:
        _assert_works(engine, table)
    assert _state(place) == before


@pytest.mark.parametrize("query", HARMLESS)
def test_what_may_run_finds_nothing_but_the_table(engine: QueryEngine, place: Path, query: str) -> None:
    table = place / "batch" / "results.parquet"
    sql = query.replace("{place}", str(place))
    _assert_nothing_leaks(str(engine.query_table(table, sql)), place, sql)
    _assert_nothing_leaks(str(engine.query_tables(_with_others(place), sql)), place, sql)
    _assert_works(engine, table)


def test_a_table_that_was_not_given_is_not_there_whatever_it_is_called(engine: QueryEngine, place: Path) -> None:
    tables = _with_others(place)
    for name in ("labels_sf6epf", "memory.main.labels_sf6epe", "main.labels_sf6epe", '"2026_x_k3m9p"', "batch"):
        with pytest.raises(UsageError, match="There is no table") as refusal:
            engine.query_tables(tables, f"SELECT * FROM {name}")
        assert 'The tables are "2026_x_k3m9pq", labels_sf6epe, results.' in str(refusal.value)
    both = 'SELECT count(*) FROM labels_sf6epe JOIN results USING (key) JOIN "2026_x_k3m9pq" AS third USING (key)'
    assert engine.query_tables(tables, both).rows == ((1000,),)
    # Names of tables last for one query.
    with pytest.raises(UsageError, match="The only table is results"):
        engine.query_table(tables["results"], both)


FILE_ATTACKS = tuple(
    attack for attack in REFUSED if "{place}" in attack and "{table}" not in attack and "nothing to see" not in attack
)


@few(20)
@pytest.mark.parametrize("table", ["results.parquet", "results-1", "several"])
@pytest.mark.parametrize("attack", [*FILE_ATTACKS, "SELECT * FROM read_json('{place}/batch/results-1/secret.json')"])
def test_the_locked_database_refuses_files_even_without_the_first_wall(place: Path, attack: str, table: str) -> None:
    """Here nobody looks at the statement first: the second wall stands alone, also around a folder of parts."""
    before = _state(place)
    sql = attack.replace("{place}", str(place))
    tables = _with_others(place) if table == "several" else {"results": place / "batch" / table}
    with locked_database(tables, 512 << 20) as connection:
        assert connection.execute("SELECT count(*) FROM results").fetchall() == [(1000,)]
        with pytest.raises(duckdb.Error) as refusal:
            connection.execute(sql).fetchall()
        assert CANARY not in str(refusal.value)
    assert _state(place) == before


@pytest.mark.parametrize(
    "statement",
    [
        "SET enable_external_access = true",
        "SET allowed_directories = ['/']",
        "SET allowed_paths = ['/etc/passwd']",
        "SET lock_configuration = false",
        "RESET allowed_paths",
        "SET memory_limit = '100GB'",
        "SET temp_directory = '/tmp'",
        "SET autoload_known_extensions = true",
        "SET python_enable_replacements = true",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SELECT * FROM place",
    ],
)
def test_the_locked_database_keeps_its_settings(place: Path, statement: str) -> None:
    with (
        locked_database({"results": place / "batch" / "results.parquet"}, 512 << 20) as connection,
        pytest.raises(duckdb.Error),
    ):
        connection.execute(statement)


def test_the_process_cannot_write_even_where_it_may_read(engine: QueryEngine, place: Path) -> None:
    """The one path that is allowed is the table's own; the process may let no file grow."""
    attack = (
        "import sys; sys.path[:] = sys.argv[2:]\n"
        "from pathlib import Path\n"
        "from gemini_batch_mcp.results.query._database import locked_database\n"
        "from gemini_batch_mcp.results.query._limits import forbid_writing\n"
        "forbid_writing()\n"
        "with locked_database({'results': Path(sys.argv[1])}, 1 << 29) as connection:\n"
        "    connection.execute(f\"COPY (SELECT 1) TO '{sys.argv[1]}' (FORMAT parquet)\")\n"
    )
    table = place / "batch" / "results.parquet"
    before = _state(place)
    done = subprocess.run(
        [sys.executable, "-I", "-c", attack, str(table), *sys.path], capture_output=True, text=True, timeout=60
    )
    assert done.returncode != 0
    assert "Error" in done.stderr
    assert _state(place) == before
