"""What statements are run on."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.cloud.warehouse import GoogleSql, Sandboxed, Warehouse
from support.extent import WANTED


@pytest.fixture(scope="session")
def _started() -> Iterator[GoogleSql]:
    """Google's own implementation, whose start takes seconds; not for a run of a part."""
    if not WANTED:
        pytest.skip("all of it in make matrix")
    if not GoogleSql.is_installed:
        pytest.skip("there is no GoogleSQL: make reference installs it")
    engine = GoogleSql()
    yield engine
    engine.end()


@pytest.fixture
def google_sql(_started: GoogleSql) -> Iterator[GoogleSql]:
    """Google's own implementation, without a table."""
    yield _started
    _started.close()


@pytest.fixture(params=["DuckDB", pytest.param("GoogleSQL", marks=pytest.mark.matrix)])
def warehouse(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Warehouse]:
    """Tables on which statements are run: the sandbox's, and those of Google's own implementation of the language."""
    if request.param != "DuckDB":
        yield request.getfixturevalue("google_sql")
        return
    tables = Sandboxed(tmp_path)
    yield tables
    tables.close()
