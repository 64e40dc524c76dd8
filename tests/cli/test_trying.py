"""Prompts and models tried on the same rows from the command line: a table of figures, and a page."""

import json
from pathlib import Path

from support.conversation import Run
from support.extent import long

SCHEMA = {"type": "object", "properties": {"mood": {"enum": ["good", "bad"]}}, "required": ["mood"]}


@long
def test_each_prompt_is_tried_with_each_model_on_the_same_rows_once(run: Run, data: Path) -> None:
    rows = [f"r{n:03},{'good' if n % 2 else 'bad'},review {n} <b>" for n in range(60)]
    (data / "reviews.csv").write_text("id,truth,text\n" + "\n".join(rows) + "\n", encoding="utf-8")
    line = [
        *("try", "reviews.csv", "--prompt", "Mood? {{text}}", "--prompt", "Good or <i>bad</i>? {{text}}"),
        *("-m", "gemini-3-flash-preview", "-m", "gemini-2.5-flash", "--rows", "20", "--expected", "truth"),
        *("--key-column", "id", "--schema", json.dumps(SCHEMA), "--yes"),
    ]
    done = run(*line, "-o", "tried.html")
    assert done.returncode == 0, done.stderr
    told = [row.split() for row in done.stdout.splitlines() if row.strip().startswith("prompt")]
    assert [(row[1], row[3]) for row in told[:4]] == [
        (prompt, model) for prompt in "12" for model in ("gemini-3-flash-preview", "gemini-2.5-flash")
    ]
    for row in told[:4]:
        assert row[4].endswith("%")
        assert row[5:7] == ["of", "20"]
    assert "rows right" in done.stdout
    # The page shows the same shares, a line for each prompt and a column for each model, and no markup of a prompt's.
    page = (data / "tried.html").read_text(encoding="utf-8")
    for row in told[:4]:
        assert f"{row[4].rstrip('%')}&nbsp;%" in page or f"{row[4].rstrip('%')} %" in page, row[4]
    assert page.count('scope="row">Prompt 1<') == 2
    assert "Good or &lt;i&gt;bad&lt;/i&gt;?" in page
    assert "<i>bad" not in page
    # Of whatever stands, `compare` lays the same four side by side, and its page has the same grid.
    compared = run("compare", told[0][-1], "truth", "-o", "compared.html")
    shares = [
        row.partition("right, ")[2].partition("%")[0] for row in compared.stdout.splitlines() if " right, " in row
    ]
    assert [f"{float(share):.1f}%" for share in shares] == [row[4] for row in told[:4]]
    assert 'scope="row">Prompt 2<' in (data / "compared.html").read_text(encoding="utf-8")
    # Nothing is ordered again, whatever is asked of the answers.
    wrong = run(*line, "--expected", "mood of the writer")
    assert wrong.returncode == 2
    assert "reviews.csv has no column 'mood of the writer'" in wrong.stderr
    again = run(*line)
    assert [row.split()[-1] for row in again.stdout.splitlines() if row.strip().startswith("prompt")][:4] == [
        row[-1] for row in told[:4]
    ]


def test_nothing_is_ordered_for_a_page_that_cannot_be_written(run: Run, data: Path) -> None:
    (data / "reviews.csv").write_text("id,truth,text\na,good,fine\n", encoding="utf-8")
    line = ("try", "reviews.csv", "--prompt", "Mood? {{text}}", "--rows", "1", "--expected", "truth", "--yes", "-o")
    for place, reason in (("tried.xlsx", "is an HTML page, and 'tried.xlsx'"), ("/nowhere/tried.html", "/nowhere")):
        done = run(*line, place)
        assert done.returncode == 2
        assert reason in done.stderr
    assert "JOB_STATE" not in run("list-jobs").stdout
