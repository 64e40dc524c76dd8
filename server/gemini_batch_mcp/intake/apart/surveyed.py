"""An order's lines as one pass has left them, with what it has seen of them: all of it fit for a pipe."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Self

from gemini_batch_mcp.domain import Task
from gemini_batch_mcp.intake.prices.survey import Limits, Surveyor
from gemini_batch_mcp.intake.request_files import RequestFile
from gemini_batch_mcp.intake.requests.identities import Identities
from gemini_batch_mcp.intake.validator.terms import Terms

#: What is written of lines is called this, in the directory of whoever has the pass made.
REQUESTS: Final = "requests.jsonl"
KEYS: Final = "keys.jsonl"
IDENTITIES: Final = "identities.parquet"


@dataclass(frozen=True, slots=True)
class Surveyed:
    """`surveyor` knows their price. `terms` is what each asks for where that is the same for all.

    Where rows may be left out, their identities are beside the lines, and `sizes` are the bytes of each line.
    """

    lines: RequestFile
    surveyor: Surveyor
    terms: Terms | None = None
    sizes: Sequence[int] = ()

    @classmethod
    def of(cls, lines: RequestFile, surveyor: Surveyor, identities: Identities) -> Self:
        """Return what the onlookers of a pass have seen."""
        lines = replace(
            lines,
            identities_path=identities.path if identities.are_wanted else None,
            asked_schema=identities.asked.schema(),
            warnings=(*lines.warnings, *identities.asked.warnings()),
        )
        return cls(lines, surveyor, identities.terms, identities.sizes)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A pass over ready lines that are to be sent as they are; what is written goes to `directory`."""

    path: Path
    directory: Path
    sha256: str
    model: str
    task: Task
    limits: Limits
    is_open: bool
    takes_identities: bool
    needs_schema: bool
    is_cloud: bool = False
