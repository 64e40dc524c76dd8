"""How much of what a project may keep at the Files API is taken."""

from collections.abc import Sequence
from typing import Final

from gemini_batch_mcp.domain import UploadedFile
from gemini_batch_mcp.gemini.service import Finding

#: What a project may keep at the Files API, result files included (ai.google.dev/gemini-api/docs/files, read 2026-08).
PROJECT_STORAGE_BYTES: Final = 20 * 1000**3
#: From this share on, an upload of 2 GB may no longer fit.
_NEARLY_FULL: Final = 0.9


def space(files: Sequence[UploadedFile], allowed_bytes: int = PROJECT_STORAGE_BYTES) -> Finding:
    """Return how much the files of a project take, and what to do where an upload may no longer fit."""
    taken = sum(file.size_bytes for file in files)
    allowed = f"{allowed_bytes / 1000**3:,.0f} GB that a project has"
    text = f"{len(files):,} files take {taken / 1000**3:,.1f} GB of the {allowed}"
    if taken < _NEARLY_FULL * allowed_bytes:
        return Finding("storage", True, text)
    return Finding(
        "storage",
        False,
        f"{text}: uploads may be refused. They go by themselves after 48 hours; those of a batch go with "
        "it: gemini-batch-mcp delete BATCH",
    )
