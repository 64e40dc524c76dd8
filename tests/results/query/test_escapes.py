"""Queries that try to read, write or learn what is not in the table: refused by either wall, and nothing changed."""

import json
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
from support.extent import in_part, part
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
FOLLOWED = frozenset(part(REFUSED, 6))


@in_part
@pytest.mark.parametrize("attack", REFUSED)
def test_an_escape_is_refused_and_the_next_query_works(engine: QueryEngine, place: Path, attack: str) -> None:
    table = place / "batch" / "results.parquet"
    before = _state(place)
    sql = attack.replace("{place}", str(place)).replace("{table}", str(table))
    with pytest.raises(UsageError) as refusal:
        engine.query_table(table, sql)
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
    _assert_works(engine, table)


FILE_ATTACKS = tuple(
    attack for attack in REFUSED if "{place}" in attack and "{table}" not in attack and "nothing to see" not in attack
)


@pytest.mark.parametrize("table", ["results.parquet", "results-1"])
@pytest.mark.parametrize("attack", [*FILE_ATTACKS, "SELECT * FROM read_json('{place}/batch/results-1/secret.json')"])
def test_the_locked_database_refuses_files_even_without_the_first_wall(place: Path, attack: str, table: str) -> None:
    """Here nobody looks at the statement first: the second wall stands alone, also around a folder of parts."""
    before = _state(place)
    sql = attack.replace("{place}", str(place))
    with locked_database(place / "batch" / table, 512 << 20) as connection:
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
        locked_database(place / "batch" / "results.parquet", 512 << 20) as connection,
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
        "with locked_database(Path(sys.argv[1]), 1 << 29) as connection:\n"
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
