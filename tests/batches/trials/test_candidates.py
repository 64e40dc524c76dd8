"""Candidates are told apart by the rows that only one of them has right, and no further than the figures allow."""

import pytest

from gemini_batch_mcp.batches.trials.candidates import Candidate, Verdict, verdict, wins_alike


def candidate(name: str, right: range, usd: float | None) -> tuple[Candidate, frozenset[int]]:
    found = Candidate("b", 1, "", name, 50, 50, len(right), 0.0, 0.0, 0.0, usd, 60)
    return found, frozenset(right)


def said(*candidates: tuple[Candidate, frozenset[int]]) -> Verdict:
    wins = [[len(one - other) for _, other in candidates] for _, one in candidates]
    return verdict([one for one, _ in candidates], wins)


def test_only_what_is_more_than_chance_is_recommended() -> None:
    better, worse, near = candidate("A", range(48), 2.0), candidate("B", range(30), 1.0), candidate("C", range(46), 1.0)
    clear = said(worse, better)
    assert clear.said == "Take prompt 1 with A: it has more rows right than every other, by more than chance."
    assert clear.pick == better[0]
    found = said(better, worse, near)
    assert found.said.startswith(
        "Prompt 1 with A has most rows right, but by no more than chance against prompt 1 with C. "
        "Of these prompt 1 with C costs least ($1.00 for 1,000 rows). About"
    )
    assert found.pick is None
    tied = said(better, candidate("C", range(48), 1.0), worse)
    assert tied.said.startswith("Prompt 1 with C has as many rows right as prompt 1 with A. Of these")
    assert "($1.00 for 1,000 rows). Take it." in tied.said
    assert tied.pick is not None
    assert tied.pick.model == "C"
    assert "rows more would narrow an interval to ±2 points" in found.said
    # Where the price does not tell them apart either, or is not known, nothing is recommended.
    for usd in (2.0, None):
        same = said(better, candidate("D", range(48), usd))
        assert same.said.startswith("Prompt 1 with A has as many rows right as prompt 1 with D. About")
        assert same.pick is None
    # Nor where none is right at all, however cheap.
    none = said(candidate("A", range(0), 2.0), candidate("B", range(0), 1.0))
    assert none.said.startswith("None of them got a row right: check whether")
    assert none.pick is None
    alone = said(better)
    assert "nothing to choose" in alone.said
    assert alone.pick is None


@pytest.mark.parametrize(
    ("one", "other", "reference"),
    # SciPy 1.17: binomtest(one, one + other).pvalue.
    [(0, 0, 1.0), (5, 5, 1.0), (8, 1, 0.0390625), (12, 3, 0.03515625), (18, 0, 7.62939453125e-06)],
)
def test_wins_are_judged_as_by_a_binomial_test(one: int, other: int, reference: float) -> None:
    assert wins_alike(one, other) == wins_alike(other, one) == pytest.approx(reference, rel=1e-12)
