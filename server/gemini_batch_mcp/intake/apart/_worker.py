"""In the process that checks lines: one pass over a file, and what it has seen as values on the way back."""

import pickle
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

from gemini_batch_mcp.digests import RequestDigest
from gemini_batch_mcp.domain import InstalledTypes
from gemini_batch_mcp.errors import BatchError, RequestProblems
from gemini_batch_mcp.intake.apart.surveyed import IDENTITIES, KEYS, Surveyed, Wanted
from gemini_batch_mcp.intake.prices.survey import Surveyor
from gemini_batch_mcp.intake.requests.identities import Identities
from gemini_batch_mcp.intake.requests.lines import Onlooker
from gemini_batch_mcp.intake.requests.reader import CopyNeeded, check_file
from gemini_batch_mcp.intake.validator.terms import Terms
from gemini_batch_mcp.intake.validator.world import World
from gemini_batch_mcp.processes import yield_to_others

#: How often it is said how far the pass is.
_SAY_SECONDS: Final = 0.1


def main() -> None:
    """Make the one pass that is wanted. A pipe that nobody reads any more ends it."""
    yield_to_others()
    wanted: Wanted = pickle.load(sys.stdin.buffer)  # noqa: S301 - from whoever has started this process, who is ours
    _say(sys.stdout.buffer, _found(wanted, sys.stdout.buffer))


class _NotHere(Exception):
    """Something has to be looked up in the types of google-genai, which take seconds to load."""


def _found(wanted: Wanted, output: BinaryIO) -> Any:
    """Return what was seen, the parts of the report on wrong lines, or None for what the other process is to do."""
    surveyor = Surveyor(wanted.model, wanted.task, limits=wanted.limits)
    identities = Identities(
        _Telling(surveyor, output),
        wanted.directory / IDENTITIES,
        RequestDigest.of(wanted.model, wanted.task),
        is_wanted=wanted.takes_identities,
        needs_schema=wanted.needs_schema,
    )
    # The keys are there only once all lines are right; identities of a refused order go with its directory.
    try:
        lines = check_file(
            wanted.path,
            task=wanted.task,
            keys_path=wanted.directory / KEYS,
            sha256=wanted.sha256,
            onlooker=identities,
            world=World(is_open=wanted.is_open, installed=_not_here, model=wanted.model, is_cloud=wanted.is_cloud),
        )
        identities.close()
    except RequestProblems as report:
        return report.problems, report.problem_count, report.message, report.next_step, report.warnings
    except (BatchError, CopyNeeded, _NotHere):
        return None
    return Surveyed.of(lines, surveyor, identities)


def _not_here() -> InstalledTypes:
    raise _NotHere


def _say(output: BinaryIO, value: Any) -> None:
    pickle.dump(value, output)
    output.flush()


@dataclass(slots=True)
class _Telling:
    """An onlooker that another one looks through; says now and then how many lines it has seen."""

    onlooker: Onlooker
    output: BinaryIO
    said_at: float = 0.0

    def begin(self) -> None:
        """Begin anew."""
        self.onlooker.begin()

    def see(self, piece: bytes, lines: Sequence[bytes], keys: bytes, before: int, terms: Terms | list[Terms]) -> None:
        """Look at the lines of a piece."""
        self.onlooker.see(piece, lines, keys, before, terms)
        if (now := time.monotonic()) - self.said_at > _SAY_SECONDS:
            self.said_at = now
            _say(self.output, before + len(lines))
