"""Workbooks as pandas writes them, by each of its writers, into the directory that is named.

`test_programs.py` runs this in the environment of `make reference`, in which pandas is, and says what comes of each.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pandas

#: The writers of pandas, and the ending of what each writes.
_ENGINES: Final = {"openpyxl": "xlsx", "xlsxwriter": "xlsx", "odf": "ods"}

_PLAIN: Final = {"id": ["007", "12345678901234567890"], "text": ["x, y", "ä € 漢 😀"], "n": [1, 2.5]}
_POINTS: Final = [("points", "math"), ("points", "art")]


def _frames() -> Mapping[str, tuple[Any, dict[str, Any]]]:
    """Return what is written by its name, and how."""
    frame, stamp = pandas.DataFrame, pandas.Timestamp
    plain, no_index = frame(_PLAIN), {"index": False}
    shops = pandas.MultiIndex.from_tuples([("north", "a"), ("north", "b"), ("south", "c")], names=["region", "shop"])
    points = frame([[2, 3], [4, 5]], columns=pandas.MultiIndex.from_tuples(_POINTS))
    return {
        "plain": (plain, no_index),
        "with its index": (plain, {}),
        "with an index that has a name": (plain.set_index("id"), {}),
        "with a label for the index": (plain, {"index_label": "row"}),
        "names of two levels": (points, {}),
        "names of two levels, unmerged": (points, {"merge_cells": False}),
        "an index of two levels": (frame({"n": [1, 2, 3]}, index=shops), {}),
        "an index of two levels, unmerged": (frame({"n": [1, 2, 3]}, index=shops), {"merge_cells": False}),
        "moments": (frame({"at": [stamp("2024-02-29 10:30:05"), stamp("1999-12-31")], "id": [1, 2]}), no_index),
        "days": (frame({"on": [stamp("2024-02-29").date(), stamp("1999-12-31").date()], "id": [1, 2]}), no_index),
        "times": (frame({"at": [stamp("2024-01-01 07:05").time(), stamp("2024-01-01 23:59:59").time()]}), no_index),
        "durations": (frame({"took": pandas.to_timedelta(["1h", "36h"]), "id": [1, 2]}), no_index),
        "what is missing": (
            frame({"n": [1.0, float("nan")], "at": [pandas.NaT, stamp("2024-01-05")], "t": [None, "a"]}),
            no_index,
        ),
        "what is missing, in words": (
            frame({"n": [1.0, float("nan")], "t": ["a", None]}),
            {**no_index, "na_rep": "NA"},
        ),
        "numbers that may be missing": (
            frame({"n": pandas.array([1, None, 3], dtype="Int64"), "t": list("abc")}),
            no_index,
        ),
        "yes and no": (frame({"is": [True, False], "maybe": pandas.array([None, True], dtype="boolean")}), no_index),
        "large numbers": (frame({"id": [2**53 - 1, 2**60, 10**14], "t": list("abc")}), no_index),
        "numbers without an end": (frame({"v": [float("inf"), -float("inf"), 0.1 + 0.2]}), no_index),
        "rounded": (frame({"v": [1 / 3, 2 / 3]}), {**no_index, "float_format": "%.2f"}),
        "years as names": (frame([["a", 1, 2], ["b", 3, 4]], columns=["shop", 2023, 2024]), no_index),
        "below other lines": (plain, {**no_index, "startrow": 3, "startcol": 2}),
        "without names": (plain, {**no_index, "header": False}),
        "other names": (plain, {**no_index, "header": ["key", "words", "count"], "sheet_name": "Данные"}),
        "held in place": (plain, {**no_index, "freeze_panes": (1, 0)}),
        "categories": (frame({"c": pandas.Categorical(["x", "y", "x"]), "n": [1, 2, 3]}), no_index),
        "no rows": (frame({"id": [], "text": []}), no_index),
    }


def _several(path: Path, engine: str) -> None:
    with pandas.ExcelWriter(path, engine=engine) as book:
        pandas.DataFrame(_PLAIN).to_excel(book, sheet_name="Orders", index=False)
        pandas.DataFrame({"a": [1]}).to_excel(book, sheet_name="Notes 1", index=False)


def main() -> None:
    """Write all of them, each as `NAME, by ENGINE.ENDING`."""
    directory = Path(sys.argv[1])
    for engine, ending in _ENGINES.items():
        for name, (frame, how) in _frames().items():
            frame.to_excel(directory / f"{name}, by {engine}.{ending}", engine=engine, **how)
        _several(directory / f"several sheets, by {engine}.{ending}", engine)


if __name__ == "__main__":
    main()
