"""A source as it is opened for the engine: by its own handle, as a copy, or unpacked."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gemini_batch_mcp.errors import storage_errors
from gemini_batch_mcp.handles import engine_path
from gemini_batch_mcp.intake.opened import SourceFile
from gemini_batch_mcp.intake.tables.text_files import BLOCK_BYTES, COPY_FAILED
from gemini_batch_mcp.intake.unpacked import OnRead, inner_name, unpack


@contextmanager
def readable(source: Path, workspace: Path, *, read_once: bool) -> Iterator[tuple[Path, Path]]:
    """Yield the path of a source, or of a copy of it, and the one by which the engine reads just that file.

    The engine follows links; so it is given the file that is open already where the system has a path for that, and
    a copy elsewhere. Raises as `_copied`.
    """
    with SourceFile(source) as file:
        if not read_once and (read := engine_path(file.fileno())) is not None:
            yield source, read
            return
        copied = _copied(file, source.name, workspace)
    yield copied, copied


def unpacked(source: Path, workspace: Path, on_read: OnRead | None) -> Path:
    """Unpack a file, under the name that it has inside. Raises as `unpack`."""
    path = workspace / "unpacked" / inner_name(source)
    with storage_errors(COPY_FAILED):
        path.parent.mkdir()
    unpack(source, path, on_read)
    return path


def _copied(file: SourceFile, name: str, workspace: Path) -> Path:
    """Copy a file, under its own name.

    Raises:
        PathError: it cannot be read.
        StorageError: the copy cannot be written.
    """
    path = workspace / "source" / name
    with storage_errors(COPY_FAILED):
        path.parent.mkdir()
        with path.open("wb", buffering=0) as output:
            while block := file.read(BLOCK_BYTES):
                output.write(block)
    return path


def read_through(path: Path) -> None:
    """Read a file that the engine could not, to learn whether the system refuses it.

    Raises:
        PathError: it does.
    """
    with SourceFile(path) as file:
        while file.read(BLOCK_BYTES):
            pass
