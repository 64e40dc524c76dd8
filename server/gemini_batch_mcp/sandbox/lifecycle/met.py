"""Which rows have met the fault that they are to meet once: kept beside the rows of the jobs."""

from pathlib import Path
from types import TracebackType
from typing import Final, Self

from gemini_batch_mcp.sandbox.replies.rows import DIGEST_BYTES

_FILE: Final = "met-once"


class MetOnce:
    """The digests of such rows; what is added while it is open is kept when it closes well."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / _FILE
        data = self._path.read_bytes() if self._path.exists() else b""
        self.digests = {data[start : start + DIGEST_BYTES] for start in range(0, len(data), DIGEST_BYTES)}
        self._before = frozenset(self.digests)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None and (new := self.digests - self._before):
            with self._path.open("ab") as file:
                file.write(b"".join(new))
