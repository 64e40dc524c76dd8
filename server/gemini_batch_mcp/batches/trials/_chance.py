"""How likely chance alone makes two samples differ as they do: of labels, of numbers, of shares.

Checked against SciPy (tests/batches/answers/test_drifting.py), which is too large to come along for three functions.
"""

import math
from bisect import bisect_right
from collections.abc import Hashable, Mapping, Sequence
from typing import Final, TypeVar

Label = TypeVar("Label", bound=Hashable)

#: Fewer rows than these expected of a label in a sample (Cochran's rule): such labels count as one.
_LEAST_EXPECTED: Final = 5.0
#: Terms of Kolmogorov's series that matter: the last of them is below 1e-30 for what is not certainly chance.
_TERMS: Final = 101


def labels_alike(one: Mapping[Label, int], other: Mapping[Label, int]) -> float:
    """Return the chance that counts of labels differ as much: all of them together, or one of them by itself.

    Together they are judged by Pearson's chi-square, in which rare labels count as one; each by itself exactly. Of the
    two chances the smaller one counts twice, and that of a label as often as there are labels.
    """
    sizes = sum(one.values()), sum(other.values())
    if not all(sizes):
        return 1.0
    labels = {*one, *other}
    each = (shares_alike((one.get(label, 0), sizes[0]), (other.get(label, 0), sizes[1])) for label in labels)
    return min(1.0, 2 * min(_together_alike(one, other), len(labels) * min(each)))


def _together_alike(one: Mapping[Label, int], other: Mapping[Label, int]) -> float:
    sizes = sum(one.values()), sum(other.values())
    share = min(sizes) / sum(sizes)
    counted, rest = list[tuple[int, int]](), (0, 0)
    for label in {*one, *other}:
        pair = one.get(label, 0), other.get(label, 0)
        if sum(pair) * share < _LEAST_EXPECTED:
            rest = rest[0] + pair[0], rest[1] + pair[1]
        else:
            counted.append(pair)
    if sum(rest) * share >= _LEAST_EXPECTED:
        counted.append(rest)
    elif counted and any(rest):
        # Too few to stand alone: they go to the smallest of the others.
        counted.sort(key=sum)
        counted[0] = counted[0][0] + rest[0], counted[0][1] + rest[1]
    expected = [[sum(pair) * size / sum(sizes) for size in sizes] for pair in counted]
    statistic = math.fsum(
        (pair[side] - due[side]) ** 2 / due[side]
        for pair, due in zip(counted, expected, strict=True)
        for side in (0, 1)
    )
    return chi_square_tail(statistic, len(counted) - 1)


def chi_square_tail(statistic: float, freedom: int) -> float:
    """Return the chance of a larger value of chi-square with so many degrees of freedom; exact for whole numbers."""
    if freedom < 1 or statistic <= 0:
        return 1.0
    half = statistic / 2
    if freedom % 2:
        total, term = math.erfc(math.sqrt(half)), math.exp(-half) * math.sqrt(2 * statistic / math.pi)
        for power in range(1, (freedom - 1) // 2 + 1):
            total += term
            term *= statistic / (2 * power + 1)
        return total
    total = term = math.exp(-half)
    for power in range(1, freedom // 2):
        term *= half / power
        total += term
    return total


def numbers_alike(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the chance that two samples of numbers differ as much (Kolmogorov-Smirnov; of equal ones too much)."""
    if not one or not other:
        return 1.0
    first, second = sorted(one), sorted(other)
    most = max(
        abs(bisect_right(first, value) / len(first) - bisect_right(second, value) / len(second))
        for value in {*first, *second}
    )
    size = math.sqrt(len(first) * len(second) / (len(first) + len(second)))
    # Stephens' correction for small samples.
    return kolmogorov_tail((size + 0.12 + 0.11 / size) * most)


def kolmogorov_tail(distance: float) -> float:
    """Return the chance of a larger distance in Kolmogorov's distribution."""
    if distance < 0.2:
        return 1.0
    signs = (1 if term % 2 else -1 for term in range(1, _TERMS))
    return 2 * math.fsum(sign * math.exp(-2 * (term * distance) ** 2) for term, sign in enumerate(signs, 1))


def shares_alike(one: tuple[int, int], other: tuple[int, int]) -> float:
    """Return the chance that two shares, given as (rows that have it, all rows), differ as much (Fisher, exact)."""
    chances = _chances(one, other)
    # What is as likely as what was seen is told from it by rounding alone.
    seen = chances.get(one[0], 1.0) * (1 + 1e-7)
    return min(1.0, math.fsum(chance for chance in chances.values() if chance <= seen))


def share_risen(one: tuple[int, int], other: tuple[int, int]) -> float:
    """Return the chance that the second share is so much larger (Fisher, one-sided; what was seen itself counts half).

    Counts come in steps, so that Fisher's own chance stays below a bound half as often as it may: of 20 rows that none
    of fails it would not tell that one in five of all rows does (Lancaster's mid-p).
    """
    return min(
        1.0,
        math.fsum(
            chance if count < one[0] else chance / 2
            for count, chance in _chances(one, other).items()
            if count <= one[0]
        ),
    )


def least_share_risen(one: tuple[int, int], other: tuple[int, int]) -> float:
    """Return what `share_risen` would be if as few as can be of the rows that have it were in the first sample."""
    return next(iter(_chances(one, other).values())) / 2


def _chances(one: tuple[int, int], other: tuple[int, int]) -> Mapping[int, float]:
    """Return how likely each count in the first sample is, if the rows that have it fall into either by chance."""
    has = one[0] + other[0]
    whole = _log_choose(one[1] + other[1], has)
    return {
        count: math.exp(_log_choose(one[1], count) + _log_choose(other[1], has - count) - whole)
        for count in range(max(0, has - other[1]), min(has, one[1]) + 1)
    }


def _log_choose(rows: int, count: int) -> float:
    return math.lgamma(rows + 1) - math.lgamma(count + 1) - math.lgamma(rows - count + 1)
