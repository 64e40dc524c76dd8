"""A whole run against its trial: what of it is not as the answers let expect that its likely cost was taken from.

Several things are compared, and each may differ by chance. So each is held to a share of one in twenty together
(Bonferroni): a run that is like its trial is named in at most five of a hundred. Where failed or truncated rows are too
few to tell anything, the others have their share of it as well (Tarone): small trials tell little, and most runs have
one of these troubles at most.
"""

from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from contextlib import suppress
from statistics import NormalDist, median
from typing import Final

from gemini_batch_mcp.batches.answers.reading import Results
from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.batches.trials._chance import labels_alike, least_share_risen, numbers_alike, share_risen
from gemini_batch_mcp.domain import ResultSummary
from gemini_batch_mcp.errors import StorageError
from gemini_batch_mcp.intake.prices.likely import CONFIDENCE, LEAST_ANSWERS, Likely
from gemini_batch_mcp.results.store import AnswerSample, Cell, ResultTable
from gemini_batch_mcp.text import dollars, plain_text
from gemini_batch_mcp.threads import in_thread

#: How often a run that is like its trial may be named all the same.
FALSE_ALARMS: Final = 0.05
#: Answers of either side that are looked at (our choice), and different values up to which a field is one of labels.
_LOOKED_AT: Final = 2_000
_MOST_LABELS: Final = 50
_MOST_NUMBERS_AS_LABELS: Final = 12
_SHOWN_CHARS: Final = 40
#: How many rows have something, of how many.
_Share = tuple[int, int]


async def drift_notes(app: App, results: Results, cost_usd: float | None) -> tuple[str, ...]:
    """Return where a batch that is done left what its trial let expect, in a sentence; nothing where it did not."""
    batch = results.status.batch
    expected = batch.estimate.likely if batch.estimate is not None else None
    if expected is None or not results.status.done or results.summary.is_partial:
        return ()
    if results.here is None:
        # Of answers that stay in BigQuery the cost is known; what they say, and how long each is, isn't here.
        found = _cost(expected, cost_usd, FALSE_ALARMS)
        named = " and ".join(expected.batches)
        return (f"More than chance differs from {named}: {found[0]}.",) if found else ()
    return await in_thread(_notes, app, results, expected, cost_usd)


def _notes(app: App, results: Results, expected: Likely, cost_usd: float | None) -> tuple[str, ...]:
    tables = []
    for batch_id in expected.batches:
        with suppress(StorageError):
            # One that was deleted since cannot be compared with.
            tables.append(ResultTable.open(app.files(batch_id).table, app.tables))
    if not tables or results.status.batch.id in expected.batches:
        return ()
    with suppress(StorageError):
        trial = _together([table.answers(_LOOKED_AT) for table in tables])
        found = differences(
            trial,
            results.table.answers(_LOOKED_AT),
            [table.summary() for table in tables],
            results.summary,
            expected,
            cost_usd,
        )
        if found:
            named = " and ".join(expected.batches)
            rows = sum(table.summary().returned for table in tables)
            return (f"More than chance differs from {named} ({rows:,} rows): {'; '.join(found)}.",)
    return ()


def differences(
    trial: AnswerSample,
    whole: AnswerSample,
    trial_rows: Sequence[ResultSummary],
    rows: ResultSummary,
    expected: Likely,
    cost_usd: float | None,
) -> list[str]:
    """Return what differs by more than chance, a phrase each: the cost, shares of rows, lengths, each answer field."""
    found: list[tuple[float, str]] = []
    if min(len(trial.written), len(whole.written)) >= LEAST_ANSWERS:
        middles = f"{median(whole.written):,.0f} output tokens an answer instead of {median(trial.written):,.0f}"
        found.append((numbers_alike(trial.written, whole.written), f"in the middle {middles}"))
        found += _fields(trial, whole)
    troubles = [
        (
            name,
            (sum(map(count, trial_rows)), sum(summary.expected for summary in trial_rows)),
            (count(rows), rows.expected),
        )
        for name, count in (("failed rows", _failed), ("truncated rows", _truncated))
    ]
    # One more for the cost.
    least = FALSE_ALARMS / (len(troubles) + len(found) + 1)
    risen = _risen(troubles, least * len(troubles))
    return [*_cost(expected, cost_usd, least), *risen, *(phrase for chance, phrase in found if chance < least)]


def _risen(troubles: Sequence[tuple[str, _Share, _Share]], chance: float) -> list[str]:
    """Say which shares, of trial and of whole run, have risen; where they are alike, with this chance at most."""
    told = [trouble for trouble in troubles if least_share_risen(*trouble[1:]) < chance]
    return [
        f"{_share(*of_whole)} {name} instead of {_share(*of_trial)}"
        for name, of_trial, of_whole in told
        if share_risen(of_trial, of_whole) < chance / len(told)
    ]


def _cost(expected: Likely, cost_usd: float | None, chance: float) -> list[str]:
    """Say that the cost lies outside of its likely range, where that range is as wide as this chance asks for."""
    if cost_usd is None or not expected.usd:
        return []
    normal = NormalDist()
    wider = normal.inv_cdf(1 - chance / 2) / normal.inv_cdf((1 + CONFIDENCE) / 2)
    low = expected.usd - (expected.usd - expected.low_usd) * wider
    # Of sums that are skewed the upper end goes out faster.
    high = max(
        expected.usd + (expected.high_usd - expected.usd) * wider,
        expected.usd * (expected.high_usd / expected.usd) ** wider,
    )
    if low <= cost_usd <= high:
        return []
    likely = f"{dollars(expected.low_usd)} to {dollars(expected.high_usd)}"
    return [f"it cost {dollars(cost_usd)}, and {likely} was likely"]


def _fields(trial: AnswerSample, whole: AnswerSample) -> Iterator[tuple[float, str]]:
    """Yield for each field the chance that it differs as much, and how."""
    for name in (name for name in whole.fields if name in trial.fields):
        one, other = ([cell for cell in side.fields[name] if cell is not None] for side in (trial, whole))
        if min(len(one), len(other)) < LEAST_ANSWERS:
            continue
        shown, kinds = plain_text(name, _SHOWN_CHARS), len({*map(_label, one), *map(_label, other)})
        is_number = all(isinstance(cell, int | float) and not isinstance(cell, bool) for cell in (*one, *other))
        if kinds <= (_MOST_NUMBERS_AS_LABELS if is_number else _MOST_LABELS):
            labels = Counter(map(_label, one)), Counter(map(_label, other))
            yield labels_alike(*labels), f"{shown} is {_changed(*labels)}"
        elif is_number:
            numbers = [float(cell) for cell in one], [float(cell) for cell in other]
            middles = f"{median(numbers[1]):,.4g} in the middle instead of {median(numbers[0]):,.4g}"
            yield numbers_alike(*numbers), f"{shown} is {middles}"
        else:
            lengths = [len(str(cell)) for cell in one], [len(str(cell)) for cell in other]
            middles = f"{median(lengths[1]):,.0f} characters in the middle instead of {median(lengths[0]):,.0f}"
            yield numbers_alike(*lengths), f"{shown} has {middles}"


def _label(cell: Cell) -> Hashable:
    return cell.strip().casefold() if isinstance(cell, str) else cell


def _changed(one: Counter[Hashable], other: Counter[Hashable]) -> str:
    """Say of the label whose share changed most by how much."""
    shares = {label: (one[label] / one.total(), other[label] / other.total()) for label in (one | other)}
    label = max(shares, key=lambda label: abs(shares[label][0] - shares[label][1]))
    before, after = shares[label]
    return f"{plain_text(str(label), _SHOWN_CHARS)!r} in {after:.1%} of answers instead of {before:.1%}"


def _together(samples: Sequence[AnswerSample]) -> AnswerSample:
    written = tuple(tokens for sample in samples for tokens in sample.written)
    names = [name for name in samples[0].fields if all(name in sample.fields for sample in samples)]
    return AnswerSample(
        written, {name: tuple(cell for sample in samples for cell in sample.fields[name]) for name in names}
    )


def _failed(summary: ResultSummary) -> int:
    return summary.expected - summary.succeeded - summary.truncated


def _truncated(summary: ResultSummary) -> int:
    return summary.truncated


def _share(count: int, rows: int) -> str:
    return f"{count / rows:.1%}" if rows else "none"
