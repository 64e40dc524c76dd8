"""What two sides of a comparison have in each row, in SQL: pairs counted, labels against labels, rows that differ.

Rows are joined once, and only narrow columns are kept of them: a million pairs take some 30 MB, whatever their texts.
"""

# ruff: noqa: S608 - statements consist of our own names, of numbers, and of names made by `identifier`

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from gemini_batch_mcp.domain import Column
from gemini_batch_mcp.results.engine import identifier
from gemini_batch_mcp.results.query.queries import RELATION, QueryEngine, Stop

#: Of two numbers that count as equal, relative to the larger one.
TOLERANCE: Final = 1e-9
#: Of the angle between two embeddings that count as equal (our choice).
LEAST_COSINE: Final = 0.99
#: The relation of the batch that is compared with.
OTHER: Final = "other"
#: Labels that kappa is computed from; a field of more different values is no classification.
MAX_LABELS: Final = 1000
CELL_CHARS: Final = 200
#: Whose cursor does not fit starts anew.
NEXT_STEP: Final = "Leave cursor out to start at the first differing row."
_MAX_CHARS: Final = 1 << 20
_WHOLE_NUMBERS: Final = frozenset(
    f"{sign}{size}" for sign in ("", "U") for size in ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT")
)

Row = Sequence[Any]


@dataclass(frozen=True, slots=True)
class Counted:
    """What a comparison counts: all rows, those with a good answer on both sides, equal ones.

    `chance` is the share that would be equal by chance, None where that cannot be said. `labels` counts what different
    things either side has. A row whose labels are rare elsewhere tells more of kappa than another one: each counts, on
    the side opposite, how many rows have the labels of this one, as a share of all that are compared. `same_weight`,
    `same_square` and `other_square` are the sums of these, and of their squares, over equal rows and over all others.
    """

    total: int
    compared: int
    equal: int
    chance: float | None
    labels: int
    same_weight: float = 0.0
    same_square: float = 0.0
    other_square: float = 0.0


@dataclass(frozen=True, slots=True)
class Sides:
    """What is compared: a column of the answers with one beside them, or with one of another batch (`is_batch`).

    `relation` is what the table of the answers is called. `in_step` says that both batches have the same keys in the
    same order, as those of one source mostly have: their rows are paired as they come, in a third of the time.
    """

    actual: Column
    expected: Column
    is_batch: bool
    relation: str = RELATION
    in_step: bool = False

    @property
    def is_vectors(self) -> bool:
        """True where embeddings are compared."""
        return self.actual.name == "embedding" == self.expected.name

    def pairs(self) -> str:
        """Return the CTE `pairs`: `row`, labels `e` and `a`, and `same`, NULL where a side has no good answer.

        What counts as equal has the same label, a number of 64 bits; embeddings have none.
        """
        expected, actual, same = self._judgement()
        return f"""pairs AS MATERIALIZED (SELECT r.row AS row, {expected} AS e, {actual} AS a, {same} AS same
            FROM {self._paired})"""

    def judged(self) -> str:
        """Return the SELECT of `key` and `same`, NULL where a side has no good answer."""
        return f"SELECT r.key AS key, {self._judgement()[2]} AS same FROM {self._source}"

    def _judgement(self) -> tuple[str, str, str]:
        """Return the labels of both sides, expected first, and whether they are the same."""
        left, right = self._left, self._right
        if self.is_vectors:
            labels = ("NULL::UBIGINT", "NULL::UBIGINT")
            same = f"({self._cosine}) >= {LEAST_COSINE}"
        else:
            columns = (self.expected, self.actual)
            is_number = any(map(_is_number, columns))
            label = _set_label if any(map(_may_hold_lists, columns)) else _number_label if is_number else _text_label
            texts = (label(left, self.expected), label(right, self.actual))
            labels = (f"hash({texts[0]})", f"hash({texts[1]})")
            same = f"({texts[0]}) = ({texts[1]})"
            if is_number:
                one, two = f"TRY_CAST({left} AS DOUBLE)", f"TRY_CAST({right} AS DOUBLE)"
                close = f"abs({one} - {two}) <= {TOLERANCE!r} * greatest(abs({one}), abs({two}))"
                same = f"coalesce({close}, {same})"
        good = "r.status = 'ok'" + (" AND o.status = 'ok'" if self.is_batch else "")
        usable = f"{good} AND {left} IS NOT NULL AND {right} IS NOT NULL{self._labelled}"
        return *labels, f"CASE WHEN {usable} THEN {same} END"

    @property
    def _labelled(self) -> str:
        """Return the condition that a row has a label, behind others.

        A blank cell of a source is none: most rows have one where a few were labelled by hand. Where answers are blank
        as well, it says that there is nothing to be found.
        """
        if self.is_batch or self.is_vectors:
            return ""
        answer = _as_text(identifier(self.actual.name), self.actual)
        may_be_blank = f"(SELECT bool_or(trim({answer}) = '') FROM {self.relation} WHERE status = 'ok')"
        return f" AND (trim({_as_text(self._left, self.expected)}) <> '' OR {may_be_blank})"

    def cells(self, rows: Sequence[int]) -> str:
        """Return the SELECT of number, key, and what either side has, for rows by their numbers."""
        if self.is_vectors:
            shown = ("'cosine of 1'", f"'cosine of ' || round({self._cosine}, 6)")
        else:
            shown = (_shown(self._left, self.expected), _shown(self._right, self.actual))
        chosen = ", ".join(map(str, rows))
        return f"SELECT r.row, r.key, {shown[0]}, {shown[1]} FROM {self._source} WHERE r.row IN ({chosen})"

    @property
    def _source(self) -> str:
        answers = f"{self.relation} AS r"
        return f"{answers} JOIN {OTHER} AS o ON r.key = o.key" if self.is_batch else answers

    @property
    def _paired(self) -> str:
        return f"{self.relation} AS r POSITIONAL JOIN {OTHER} AS o" if self.in_step else self._source

    @property
    def _left(self) -> str:
        return f"{'o' if self.is_batch else 'r'}.{identifier(self.expected.name)}"

    @property
    def _right(self) -> str:
        return f"r.{identifier(self.actual.name)}"

    @property
    def _cosine(self) -> str:
        left, right = self._left, self._right
        return f"CASE WHEN len({left}) = len({right}) THEN list_cosine_similarity({left}, {right}) END"


@dataclass(frozen=True, slots=True)
class Found:
    """What was found. `pairs` are (expected, actual, rows); `differing` are (number, key, expected, actual)."""

    counted: Counted
    pairs: tuple[tuple[str, str, int], ...]
    differing: tuple[tuple[int, str, str, str], ...]
    has_more: bool


def compared_rows(
    queries: QueryEngine,
    sides: Sides,
    folders: Mapping[str, Path],
    *,
    limit: int,
    after: int = 0,
    max_pairs: int,
    stop: Stop,
) -> Found:
    """Return what is counted, the commonest pairs, and up to `limit` rows behind number `after` that differ."""
    ask = _asking(queries, folders, stop)
    sides = _in_step(ask, sides)
    labels = """SELECT label, sum(one)::DOUBLE AS one, sum(two)::DOUBLE AS two FROM (
            SELECT e AS label, n AS one, 0 AS two FROM counted UNION ALL SELECT a, 0, n FROM counted)
        WHERE label IS NOT NULL GROUP BY label"""
    counted = """SELECT e, a, same, count(*) AS n, min(row) AS row FROM pairs
        WHERE same IS NOT NULL AND e IS NOT NULL GROUP BY e, a, same"""
    # Of more labels, a row for each would be joined for nothing.
    weights = f"""SELECT same, n, left_label.two + right_label.one AS weight FROM counted
        JOIN labels AS left_label ON left_label.label = e JOIN labels AS right_label ON right_label.label = a
        WHERE (SELECT count(*) FROM labels) <= {MAX_LABELS}"""
    answer = ask(
        f"""WITH {sides.pairs()}, counted AS MATERIALIZED ({counted}), labels AS MATERIALIZED ({labels})
        SELECT 1 AS part, count(*) AS n, count(same) AS m, count(*) FILTER (same) AS k, NULL AS x FROM pairs
        UNION ALL (SELECT 2, sum(n), min(row), NULL, NULL FROM counted GROUP BY e, a ORDER BY 2 DESC, 3
                   LIMIT {max_pairs})
        UNION ALL (SELECT 3, row, NULL, NULL, NULL FROM pairs
                   WHERE NOT same AND row > {after} ORDER BY row LIMIT {limit + 1})
        UNION ALL SELECT 4, count(*), NULL, NULL, sum(one * two) FROM labels
        UNION ALL SELECT CASE WHEN same THEN 5 ELSE 6 END, NULL, NULL, sum(n * weight), sum(n * weight * weight)
                  FROM ({weights}) GROUP BY same"""
    )
    ((_, total, compared, equal, _),) = (row for row in answer if row[0] == 1)
    pairs = sorted(((int(n), int(row)) for part, n, row, *_ in answer if part == 2), key=lambda one: (-one[0], one[1]))
    behind = sorted(int(row) for part, row, *_ in answer if part == 3)
    cells = _cells(ask, sides, [row for _, row in pairs] + behind[:limit])
    return Found(
        counted_of(answer, int(total), int(compared), int(equal)),
        tuple((*cells[row][1:], n) for n, row in pairs),
        tuple((row, *cells[row]) for row in behind[:limit]),
        len(behind) > limit,
    )


def counted_of(answer: Sequence[Row], total: int, compared: int, equal: int) -> Counted:
    """Return what is counted, from rows of part, n, m, k and x: 4 is of labels, 5 and 6 of weights."""
    ((_, labels, _, _, product),) = (row for row in answer if row[0] == 4)
    # Embeddings have no labels.
    if not labels or labels > MAX_LABELS or not compared:
        return Counted(total, compared, equal, None, int(labels or 0))
    weights = {part: (float(one) / compared, float(two) / compared**2) for part, _, _, one, two in answer if part >= 5}
    same, other = weights.get(5, (0.0, 0.0)), weights.get(6, (0.0, 0.0))
    return Counted(total, compared, equal, float(product) / compared**2, int(labels), *same, other[1])


@dataclass(frozen=True, slots=True)
class Crossed:
    """Labels in order, and how many rows have each pair of them, expected first; `None` stands for all rarer labels."""

    labels: tuple[str, ...]
    counts: Mapping[tuple[int | None, int | None], int]


def crossed_labels(
    queries: QueryEngine, sides: Sides, folders: Mapping[str, Path], *, max_labels: int, stop: Stop
) -> Crossed:
    """Return the commonest labels of both sides together, and every row counted by the two that it has."""
    ask = _asking(queries, folders, stop)
    sides = _in_step(ask, sides)
    answer = ask(
        f"""WITH {sides.pairs()},
        tops AS MATERIALIZED (SELECT label, min(one) AS one, min(two) AS two, row_number() OVER (
                     ORDER BY count(*) DESC, least(min(one), min(two))) AS place
                 FROM (SELECT e AS label, row AS one, NULL AS two FROM pairs WHERE same IS NOT NULL
                       UNION ALL SELECT a, NULL, row FROM pairs WHERE same IS NOT NULL)
                 WHERE label IS NOT NULL GROUP BY label QUALIFY place <= {max_labels})
        SELECT 1 AS part, place AS p, one AS q, two AS n FROM tops
        UNION ALL SELECT 2, t.place, u.place, count(*) FROM pairs LEFT JOIN tops AS t ON pairs.e = t.label
            LEFT JOIN tops AS u ON pairs.a = u.label WHERE same IS NOT NULL GROUP BY t.place, u.place"""
    )
    tops = sorted((int(place), one, two) for part, place, one, two in answer if part == 1)
    cells = _cells(ask, sides, [int(one if one is not None else two) for _, one, two in tops])
    labels = tuple(cells[int(one)][1] if one is not None else cells[int(two)][2] for _, one, two in tops)
    counts = {(_place(one), _place(two)): int(n) for part, one, two, n in answer if part == 2}
    return Crossed(labels, counts)


@dataclass(frozen=True, slots=True)
class Judged:
    """Several candidates that answer the same rows. Rows are counted by the candidates that have them right (`right`),
    and by those that have a good answer at all (`answered`): a bit each, that of the first candidate the lowest."""

    right: Mapping[int, int]
    answered: Mapping[int, int]

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return sum(self.right.values())

    def equal(self, one: int) -> int:
        """Return how many rows a candidate has right."""
        return sum(rows for bits, rows in self.right.items() if bits >> one & 1)

    def compared(self, one: int) -> int:
        """Return how many rows a candidate has a good answer for."""
        return sum(rows for bits, rows in self.answered.items() if bits >> one & 1)

    def only(self, one: int, other: int) -> int:
        """Return how many rows `one` has right and `other` has not."""
        return sum(rows for bits, rows in self.right.items() if bits >> one & 1 and not bits >> other & 1)


def judged_together(
    queries: QueryEngine, candidates: Sequence[Sides], folders: Mapping[str, Path], *, stop: Stop
) -> Judged:
    """Return how candidates answer the rows that all of them have; ten of them at most."""
    tables = ", ".join(f"j{number} AS MATERIALIZED ({sides.judged()})" for number, sides in enumerate(candidates))
    joined = " ".join(["j0", *(f"JOIN j{number} USING (key)" for number in range(1, len(candidates)))])

    def bits(holds: str) -> str:
        return " + ".join(
            f"CASE WHEN j{number}.{holds} THEN {1 << number} ELSE 0 END" for number in range(len(candidates))
        )

    found = queries.query_tables(
        folders,
        f"""WITH {tables}, rows AS MATERIALIZED (
            SELECT {bits("same")} AS right_bits, {bits("same IS NOT NULL")} AS answered FROM {joined})
        SELECT 1 AS part, right_bits AS bits, count(*) AS n FROM rows GROUP BY right_bits
        UNION ALL SELECT 2, answered, count(*) FROM rows GROUP BY answered""",
        limit=1000,
        max_chars=_MAX_CHARS,
        stop=stop,
    ).rows
    rows: Sequence[Row] = found
    right, answered = ({int(key): int(n) for part, key, n in rows if part == wanted} for wanted in (1, 2))
    return Judged(right, answered)


def _asking(queries: QueryEngine, folders: Mapping[str, Path], stop: Stop) -> Callable[[str], Sequence[Row]]:
    def ask(sql: str) -> Sequence[Row]:
        # The largest answer: 1,000 rows of two cells and a key.
        return queries.query_tables(
            folders, sql, limit=1000, max_cell_chars=CELL_CHARS, max_chars=_MAX_CHARS, stop=stop
        ).rows

    return ask


def _in_step(ask: Callable[[str], Sequence[Row]], sides: Sides) -> Sides:
    """Return the sides, in step where each key of one batch stands beside the same key of the other."""
    if not sides.is_batch:
        return sides
    ((apart,),) = ask(
        f"SELECT count(*) FROM {sides.relation} AS r POSITIONAL JOIN {OTHER} AS o WHERE r.key IS DISTINCT FROM o.key"
    )
    return replace(sides, in_step=apart == 0)


def _cells(ask: Callable[[str], Sequence[Row]], sides: Sides, rows: Sequence[int]) -> dict[int, tuple[str, str, str]]:
    """Return key, expected and actual of rows by their numbers."""
    chosen = sorted(set(rows))
    if not chosen:
        return {}
    return {int(row): (str(key), str(left), str(right)) for row, key, left, right in ask(sides.cells(chosen))}


def _place(number: Any) -> int | None:
    return None if number is None else int(number) - 1


def _set_label(value: str, column: Column) -> str:
    """Return a list's label: its different entries in order, written as texts are; what is no list is one entry."""
    if column.type.endswith("[]"):
        return _set_of(value)
    parsed = value if column.type == "JSON" else f"TRY_CAST({value} AS JSON)"
    text = f"lower(trim({_as_text(value, column)}))"
    entries = f"from_json({parsed}, '[\"VARCHAR\"]')"
    return f"CASE WHEN json_type({parsed}) = 'ARRAY' THEN {_set_of(entries)} ELSE to_json([{text}])::VARCHAR END"


def _set_of(entries: str) -> str:
    return f"to_json(list_sort(list_distinct(list_transform({entries}, lambda v: lower(trim(v::VARCHAR))))))::VARCHAR"


def _text_label(value: str, column: Column) -> str:
    return f"lower(trim({_as_text(value, column)}))"


def _number_label(value: str, column: Column) -> str:
    return f"coalesce(printf('%.9g', TRY_CAST({value} AS DOUBLE)), {_text_label(value, column)})"


def _shown(value: str, column: Column) -> str:
    return f"to_json({value})::VARCHAR" if column.type.endswith("[]") else _as_text(value, column)


def _as_text(value: str, column: Column) -> str:
    return f"({value} ->> '$')" if column.type == "JSON" else f"{value}::VARCHAR"


def _may_hold_lists(column: Column) -> bool:
    return column.type == "JSON" or column.type.endswith("[]")


def _is_number(column: Column) -> bool:
    return column.type in (*_WHOLE_NUMBERS, "DOUBLE", "FLOAT") or column.type.startswith("DECIMAL")
