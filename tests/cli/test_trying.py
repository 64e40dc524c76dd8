"""Prompts and models tried on the same rows: a table of figures, and the recommendation that these allow."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from gemini_batch_mcp.batches.answers.comparing import Comparison
from gemini_batch_mcp.cli.trying import Tried, verdict, wins_alike
from support.conversation import Run

SCHEMA = {"type": "object", "properties": {"mood": {"enum": ["good", "bad"]}}, "required": ["mood"]}


def test_each_prompt_is_tried_with_each_model_on_the_same_rows_once(run: Run, data: Path) -> None:
    rows = [f"r{n:03},{'good' if n % 2 else 'bad'},review {n}" for n in range(60)]
    (data / "reviews.csv").write_text("id,truth,text\n" + "\n".join(rows) + "\n", encoding="utf-8")
    line = [
        *("try", "reviews.csv", "--prompt", "Mood? {{text}}", "--prompt", "Good or bad? {{text}}"),
        *("-m", "gemini-3-flash-preview", "-m", "gemini-2.5-flash", "--rows", "20", "--expected", "truth"),
        *("--key-column", "id", "--schema", json.dumps(SCHEMA), "--yes"),
    ]
    done = run(*line)
    assert done.returncode == 0, done.stderr
    told = [row.split() for row in done.stdout.splitlines() if row.strip().startswith("prompt")]
    assert [(row[1], row[3]) for row in told[:4]] == [
        (prompt, model) for prompt in "12" for model in ("gemini-3-flash-preview", "gemini-2.5-flash")
    ]
    for row in told[:4]:
        assert row[4].endswith("%")
        assert row[5:7] == ["of", "20"]
    assert "rows right" in done.stdout
    again = run(*line)
    assert [row.split()[-1] for row in again.stdout.splitlines() if row.strip().startswith("prompt")][:4] == [
        row[-1] for row in told[:4]
    ]


def candidate(name: str, right: range, usd: float) -> Tried:
    found = Comparison("b", "truth", "mood", 50, len(right), 0, None, None, None, None, (), (), "")
    return Tried(name, replace(found, more_rows=700), frozenset(map(str, right)), 50, usd, 60)


def test_only_what_is_more_than_chance_is_recommended() -> None:
    better, worse, near = candidate("A", range(48), 0.2), candidate("B", range(30), 0.1), candidate("C", range(46), 0.1)
    assert verdict([worse, better]) == "Take A: it has more rows right than every other, by more than chance."
    said = verdict([better, worse, near])
    assert said.startswith("A has most rows right, but by no more than chance against C. Of these C costs least ($2.00")
    assert "700 rows more" in said
    assert "nothing to choose" in verdict([better])


@pytest.mark.parametrize(
    ("one", "other", "reference"),
    # SciPy 1.17: binomtest(one, one + other).pvalue.
    [(0, 0, 1.0), (5, 5, 1.0), (8, 1, 0.0390625), (12, 3, 0.03515625), (18, 0, 7.62939453125e-06)],
)
def test_wins_are_judged_as_by_a_binomial_test(one: int, other: int, reference: float) -> None:
    assert wins_alike(one, other) == wins_alike(other, one) == pytest.approx(reference, rel=1e-12)
