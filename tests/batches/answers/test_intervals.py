"""Intervals hold what they are said to as often as they say: of shares, and of kappa. The figures are printed."""

import random
import sys
from collections import Counter
from collections.abc import Mapping
from typing import Final

from gemini_batch_mcp.batches.answers._pairs import Counted
from gemini_batch_mcp.batches.answers.comparing import kappa, kappa_range, wilson
from support.extent import in_part, tries

#: How often an interval of 95 % may hold.
_LEAST, _MOST = 0.93, 0.97
#: How often each pair of labels comes, expected first.
Pairs = Mapping[tuple[int, int], float]
_SIZES: Final = (20, 50, 100, 200, 1000)


def test_the_interval_of_a_share_holds_the_whole_sources_as_often_as_it_says() -> None:
    """Over pilots of labelled rows: their true share, and which rows they took."""
    rng, held, tried = random.Random(2), 0, 4_000
    for _ in range(tried):
        true, rows = rng.uniform(0.5, 0.98), rng.choice([20, 50, 200])
        low, high = wilson(sum(rng.random() < true for _ in range(rows)), rows)
        assert low is not None and high is not None
        held += low <= true <= high
    sys.stderr.write(f"\nshare: 95 % intervals held in {held / tried:.1%} of {tried:,}\n")
    assert _LEAST <= held / tried <= _MOST


@in_part
def test_the_interval_of_kappa_holds_the_whole_sources_as_often_as_it_says() -> None:
    """Over tables of two to five labels that come unequally often, from little agreement to nearly all."""
    rng, held, tried = random.Random(3), Counter[int](), Counter[int]()
    for number in range(tries(10_000, 400)):
        rows = _SIZES[number % len(_SIZES)]
        source = a_source(rng)
        true = kappa(counted(source))
        cells = list(source)
        low, high = kappa_range(counted(Counter(rng.choices(cells, [source[cell] for cell in cells], k=rows))))
        if low is None or high is None:
            # One label alone: there is no kappa.
            continue
        assert true is not None
        tried[rows] += 1
        held[rows] += low <= true <= high
    told = ", ".join(f"{held[rows] / tried[rows]:.1%} of {rows:,} rows" for rows in _SIZES)
    share = held.total() / tried.total()
    sys.stderr.write(f"\nkappa: 95 % intervals held in {share:.1%} of {tried.total():,} ({told})\n")
    assert _LEAST <= share <= _MOST, told


def a_source(rng: random.Random) -> Pairs:
    """Two that label rows: what either tends to, and how often the second follows the first."""
    labels = range(rng.choice([2, 2, 3, 5]))
    one, two = ([rng.gammavariate(2, 1) for _ in labels] for _ in range(2))
    agreement = rng.uniform(0.3, 0.97)
    return {
        (e, a): one[e] / sum(one) * (agreement * (e == a) + (1 - agreement) * two[a] / sum(two))
        for e in labels
        for a in labels
    }


def counted(pairs: Pairs) -> Counted:
    """What a comparison counts of rows with these pairs of labels."""
    rows, same = sum(pairs.values()), sum(n for (e, a), n in pairs.items() if e == a)
    one, two = Counter[int](), Counter[int]()
    for (e, a), n in pairs.items():
        one[e] += n  # type: ignore[assignment]  # shares stand for counts here
        two[a] += n  # type: ignore[assignment]
    weights = [(e == a, n, (two[e] + one[a]) / rows) for (e, a), n in pairs.items()]
    return Counted(
        total=rows,  # type: ignore[arg-type]
        compared=rows,  # type: ignore[arg-type]
        equal=same,  # type: ignore[arg-type]
        chance=sum(one[label] * two[label] for label in one) / rows**2,
        labels=len(one),
        same_weight=sum(n * weight for is_same, n, weight in weights if is_same),
        same_square=sum(n * weight**2 for is_same, n, weight in weights if is_same),
        other_square=sum(n * weight**2 for is_same, n, weight in weights if not is_same),
    )
