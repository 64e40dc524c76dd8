"""Kappa with its standard error and a bootstrap's interval, confusion and interval of each table after scikit-learn,
statsmodels and SciPy, in `figures.json` beside this file.

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
#: Of fewer rows, rows drawn again tell little.
LEAST_ROWS: Final = 40
_SEED: Final = 20261129


def figures_of(table: Labelled) -> dict[str, Any]:
    """Return what the libraries say of one table; kappa is None where they call it undefined."""
    from sklearn.metrics import cohen_kappa_score, confusion_matrix
    from statsmodels.stats.inter_rater import cohens_kappa
    from statsmodels.stats.proportion import proportion_confint

    expected, actual = [one for one, _ in table.both], [other for _, other in table.both]
    if not expected:
        return {"labels": [], "confusion": [], "kappa": None, "error": None, "interval": None, "bootstrap": None}
    labels = sorted({*expected, *actual})
    equal = sum(one == other for one, other in table.both)
    kappa = float(cohen_kappa_score(expected, actual, labels=labels))
    confusion = confusion_matrix(expected, actual, labels=labels)
    error = None if math.isnan(kappa) else float(cohens_kappa(confusion).std_kappa)
    low, high = proportion_confint(equal, len(expected), alpha=0.05, method="wilson")
    return {
        "labels": labels,
        "confusion": confusion.tolist(),
        "kappa": None if math.isnan(kappa) else kappa,
        # By rounding it may be the root of less than nothing.
        "error": 0.0 if error is not None and math.isnan(error) else error,
        "interval": [float(low), float(high)],
        "bootstrap": _bootstrapped(expected, actual) if len(expected) >= LEAST_ROWS and 0 < kappa < 1 else None,
    }


def _bootstrapped(expected: list[str], actual: list[str]) -> list[float]:
    """Return SciPy's 95 % interval of kappa from rows drawn again and again."""
    import numpy as np
    from scipy.stats import bootstrap
    from sklearn.metrics import cohen_kappa_score

    found = bootstrap(
        (np.array(expected), np.array(actual)),
        cohen_kappa_score,
        paired=True,
        vectorized=False,
        n_resamples=999,
        method="percentile",
        rng=np.random.default_rng(_SEED),
    ).confidence_interval
    return [float(found.low), float(found.high)]


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
    sys.stdout.write(f"{len(figures)} tables, as scikit-learn, statsmodels and SciPy have them.\n")


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
