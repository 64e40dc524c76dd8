"""The merged table of an earlier batch as a source: its parts are read where they are, in request order."""

# ruff: noqa: S608 - statements consist of our own names, and of literals made by `sql.py`

import hashlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gemini_batch_mcp.errors import StorageError, storage_errors
from gemini_batch_mcp.intake.tables.sql import as_text, file_literal, quoted

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

#: The column of a table that says which file an answer carried.
FILES_COLUMN: Final = "files"
#: The column that holds the keys, which a next step keeps as its own.
KEY_COLUMN: Final = "key"
#: The column that says where a row stands, from 1.
ROW_COLUMN: Final = "row"


@dataclass(frozen=True, slots=True)
class EarlierRows:
    """What a batch was answered with, as rows for the next one.

    `parts` are the Parquet files of one build of its table, `columns` those that a prompt may name. `version` changes
    whenever the rows do. `directory` is where the paths of files that answers carried start; `beside` where paths in
    the columns of its own source start, None where that is not known.
    """

    batch_id: str
    display_name: str
    version: str
    parts: tuple[Path, ...]
    columns: tuple[str, ...]
    directory: Path
    media: Path
    beside: Path | None = None
    warnings: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What the source is called, for people."""
        return self.batch_id

    @property
    def content_sha256(self) -> str:
        """What an order of these rows is recognised by: the batch, and its table as it is now."""
        return hashlib.sha256(f"batch {self.batch_id} {self.version}".encode()).hexdigest()


def linked_parts(source: EarlierRows, workspace: Path) -> tuple[Path, ...]:
    """Return the parts under names of ours: another build of the table may remove its own at any time.

    Raises:
        StorageError: they are gone already, or there is no room.
    """
    linked = []
    with storage_errors("The earlier answers could not be read"):
        directory = workspace / "parts"
        directory.mkdir(exist_ok=True)
        for number, part in enumerate(source.parts):
            path = directory / f"part-{number:05d}.parquet"
            try:
                if not path.exists():
                    os.link(part, path)
            except FileNotFoundError:
                raise StorageError(
                    f"The table of {source.name} was just rebuilt.", "Make the same call again."
                ) from None
            except OSError:
                shutil.copyfile(part, path)
            linked.append(path)
    return tuple(linked)


def relation_of(connection: "DuckDBPyConnection", source: EarlierRows, parts: Sequence[Path]) -> tuple[str, list[str]]:
    """Return the relation with the rows of all parts, in request order, and the source's columns in it as texts.

    Rows are sorted only where they are not in that order.

    Raises:
        StorageError: the table is damaged.
    """
    import duckdb

    relation = f"read_parquet([{', '.join(map(file_literal, parts))}], hive_partitioning = false)"
    looked = f"SELECT {ROW_COLUMN} < lag({ROW_COLUMN}) OVER () AS goes_back FROM {relation}"
    try:
        (goes_back,) = connection.execute(f"SELECT coalesce(bool_or(goes_back), false) FROM ({looked})").fetchall()[0]
        kinds = {str(name): str(kind) for name, kind, *_ in connection.execute(f"DESCRIBE FROM {relation}").fetchall()}
    except duckdb.Error:
        raise StorageError(f"The table of {source.name} cannot be read.", "Call get_results for it once.") from None
    files = _files(source.directory)
    cells = [files if name == FILES_COLUMN else as_text(name, kinds[name]) for name in source.columns]
    return f"(SELECT * FROM {relation} ORDER BY {ROW_COLUMN})" if goes_back else relation, cells


def _files(directory: Path) -> str:
    """One file is its path, several are a list of paths as JSON."""
    whole = f"list_transform({FILES_COLUMN}, lambda name: {quoted(f'{directory}/')} || name)"
    return f"CASE WHEN len({FILES_COLUMN}) = 1 THEN ({whole})[1] ELSE CAST(to_json({whole}) AS VARCHAR) END"
