"""Kappa, confusion and interval of each table after scikit-learn and statsmodels, in `figures.json` beside this file.

`make reference` runs this in an environment of its own, in which the two are: it computes all figures and compares them
with those in the file; `--write` writes them. The tests read the file, and need neither.
"""

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parents[2]))
from support.agreement.tables import Labelled, tables

FIGURES: Final = Path(__file__).with_name("figures.json")


def figures_of(table: Labelled) -> dict[str, Any]:
    """Return what the libraries say of one table; kappa is None where they call it undefined."""
    from sklearn.metrics import cohen_kappa_score, confusion_matrix
    from statsmodels.stats.proportion import proportion_confint

    expected, actual = [one for one, _ in table.both], [other for _, other in table.both]
    if not expected:
        return {"labels": [], "confusion": [], "kappa": None, "interval": None}
    labels = sorted({*expected, *actual})
    equal = sum(one == other for one, other in table.both)
    kappa = float(cohen_kappa_score(expected, actual, labels=labels))
    low, high = proportion_confint(equal, len(expected), alpha=0.05, method="wilson")
    return {
        "labels": labels,
        "confusion": confusion_matrix(expected, actual, labels=labels).tolist(),
        "kappa": None if math.isnan(kappa) else kappa,
        "interval": [float(low), float(high)],
    }


def main() -> None:
    """Compare the figures with the file, or write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the file")
    figures = [figures_of(table) for table in tables()]
    if parser.parse_args().write:
        lines = ",\n".join(json.dumps(one, separators=(",", ":")) for one in figures)
        FIGURES.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
        return
    kept = json.loads(FIGURES.read_text(encoding="utf-8"))
    differing = [
        place for place, (one, other) in enumerate(zip(figures, kept, strict=True)) if not _is_same(one, other)
    ]
    if differing:
        sys.exit(f"The libraries say something else of the tables {differing}.")
    sys.stdout.write(f"{len(figures)} tables, as scikit-learn and statsmodels have them.\n")


def _is_same(one: Any, other: Any) -> bool:
    """Whether two figures are the same but for the last digits of a float."""
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_is_same(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_is_same, one, other))
    return bool(one == other)


if __name__ == "__main__":
    main()
