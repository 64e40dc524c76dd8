"""Numbers, times and states of a report in words that people read at a glance."""

from datetime import UTC, datetime
from typing import Final

from gemini_batch_mcp.domain import JobState, RowStatus

#: Every status with its name, the sign that stands for it beside the colour, and what it means.
STATUSES: Final = {
    RowStatus.OK: ("OK", "✓", "a whole answer"),
    RowStatus.FAILED: ("Failed", "✕", "Gemini answered with an error"),
    RowStatus.BLOCKED: ("Blocked", "⊘", "the prompt or the answer was blocked"),
    RowStatus.TRUNCATED: ("Truncated", "⋯", "the answer stopped at the output limit"),
    RowStatus.EMPTY: ("Empty", "○", "an answer without content"),
    RowStatus.MISSING: ("Missing", "?", "no answer came back"),
}
#: The sign and the colour of a job's state, by how it stands; other states are on their way.
_STATE_LOOKS: Final = {
    JobState.SUCCEEDED: ("✓", "ok"),
    JobState.PARTIALLY_SUCCEEDED: ("◐", "truncated"),
    JobState.FAILED: ("✕", "failed"),
    JobState.EXPIRED: ("✕", "failed"),
    JobState.CANCELLED: ("⊘", "missing"),
    JobState.CANCELLING: ("⊘", "missing"),
    JobState.PAUSED: ("‖", "missing"),
    JobState.UNSPECIFIED: ("?", "missing"),
}
_SCALES: Final = ((1_000_000_000, " B"), (1_000_000, " M"), (1_000, " k"))


def short(number: float) -> str:
    """Return a number in three digits or so: 912, 4.12 M."""
    for scale, letter in _SCALES:
        if number >= 0.9995 * scale:
            return f"{number / scale:.3g}{letter}"
    return f"{number:.3g}"


def measure(number: float) -> str:
    """Return a number that was measured: whole ones as they are, others in four digits that count."""
    if number == round(number) and abs(number) < 1e15:
        return f"{round(number):,}"
    return f"{number:,.0f}" if 1000 <= abs(number) < 1e15 else f"{number:.4g}"


def share(part: int, whole: int) -> str:
    """Return a share in percent. Only all is 100 % and only nothing is 0 %."""
    if part <= 0 or whole <= 0:
        return "0 %"
    if part >= whole:
        return "100 %"
    percent = 100 * part / whole
    if percent < 0.1:
        return "< 0.1 %"
    return "> 99.9 %" if percent > 99.9 else f"{percent:.1f} %"


def usd(amount: float) -> str:
    """Return an amount of money; small ones keep two digits that count."""
    if amount == 0 or amount >= 1:
        return f"${amount:,.2f}"
    return f"${amount:.4f}" if amount >= 0.00005 else "under $0.0001"


def moment(time: datetime) -> str:
    """Return a point in time, in UTC."""
    return f"{utc(time):%d %b %Y, %H:%M} UTC".lstrip("0")


def utc(time: datetime) -> datetime:
    """Return a time in UTC; one without a zone is taken as UTC."""
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def duration(start: datetime, end: datetime) -> str:
    """Return how long it is from one time to another, in its two largest units."""
    seconds = max(int((utc(end) - utc(start)).total_seconds()), 0)
    units = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))
    for index, (size, name) in enumerate(units):
        if seconds >= size:
            words = f"{seconds // size} {name}"
            if index + 1 < len(units):
                smaller, smaller_name = units[index + 1]
                rest = seconds % size // smaller
                words += f" {rest} {smaller_name}" if rest else ""
            return words
    return "0 s"


def state_name(state: JobState) -> str:
    """Return the state as people say it: "Partially succeeded"."""
    return state.value.removeprefix("JOB_STATE_").replace("_", " ").capitalize()


def state_look(state: JobState) -> tuple[str, str]:
    """Return the sign of a state and the name of its colour."""
    return _STATE_LOOKS.get(state, ("●", "going"))
