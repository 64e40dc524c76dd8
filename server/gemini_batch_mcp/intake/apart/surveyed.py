"""An order's lines as one pass has left them, with what it has seen of them: values only, fit for a pipe."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Self

from gemini_batch_mcp.domain import JsonObject, Task
from gemini_batch_mcp.intake.prices.survey import Limits, Survey, Surveyor
from gemini_batch_mcp.intake.request_files import RequestFile
from gemini_batch_mcp.intake.requests.identities import Identities
from gemini_batch_mcp.intake.validator.terms import Terms

#: What is written of lines is called this, in the directory of whoever has the pass made.
REQUESTS: Final = "requests.jsonl"
KEYS: Final = "keys.jsonl"
IDENTITIES: Final = "identities.txt"


@dataclass(frozen=True, slots=True)
class Surveyed:
    """`survey` is their price, `sample` the requests that Gemini may be asked about, by their numbers.

    `terms` is what each asks for where that is the same for all, and `have_schema` says that every one asks for an
    answer in a given form, where that was looked for.
    """

    lines: RequestFile
    survey: Survey
    sample: dict[int, JsonObject]
    terms: Terms | None = None
    have_schema: bool = False

    @classmethod
    def of(cls, lines: RequestFile, surveyor: Surveyor, identities: Identities | None = None) -> Self:
        """Return what the onlookers of a pass have seen."""
        survey, sample = surveyor.survey(), surveyor.requests()
        if identities is None:
            return cls(lines, survey, sample)
        lines = replace(
            lines,
            identities_path=identities.path,
            asked_schema=identities.asked.schema(),
            warnings=(*lines.warnings, *identities.asked.warnings()),
        )
        return cls(lines, survey, sample, identities.terms, identities.have_schema)


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
    looks_for_schema: bool
    is_cloud: bool = False
