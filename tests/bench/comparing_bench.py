"""Comparing the answers of a million rows: the processor time of ours against json.loads, dicts and a Counter.

Both have their files at hand: the plain way the answers as Gemini sent them, ours the tables made of these. Batches are
compared with a column of right answers, and with one another. Both ways take turns, and of each its best turn counts:
what else a machine does makes a way slower, never faster.
"""

import argparse
import csv
import json
import resource
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, Final

#: Of ours to the plain way (our choice).
MAX_RATIO: Final = 1 / 20
_REPEATS: Final = 4
_TURNS: Final = 3
_LINE: Final = (
    '{{"key":"row-{0:08d}","response":{{"candidates":[{{"content":{{"parts":[{{"text":"{{\\"label\\":\\"{1}\\"}}"}}],'
    '"role":"model"}},"finishReason":"STOP","index":0}}],"usageMetadata":{{"promptTokenCount":14,"candidatesTokenCount":12,'
    '"totalTokenCount":26}},"modelVersion":"gemini-3.8-flash","responseId":"i{0}"}}}}\n'
)
_LABELS: Final = ("positive", "negative", "neutral", "mixed")
_SCHEMA: Final[dict[str, Any]] = {"type": "object", "properties": {"label": {"type": "string"}}, "required": ["label"]}


def write_files(place: Path, rows: int) -> None:
    """Write the answers of two batches, and the right ones as CSV."""
    with (place / "one.jsonl").open("w") as one, (place / "two.jsonl").open("w") as two:
        for number in range(rows):
            one.write(_LINE.format(number, _LABELS[number % 4]))
            two.write(_LINE.format(number, _LABELS[number % 4 if number % 10 else number % 3]))
    with (place / "truth.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "truth"])
        writer.writerows((f"row-{number:08d}", _LABELS[number % 4 if number % 7 else 0]) for number in range(rows))


def build_tables(place: Path, rows: int) -> None:
    """Make the tables of both batches, the first one's with the right answers beside it."""
    import duckdb

    from gemini_batch_mcp.results.store import AnswerFile, TablePlan, build_planned

    keys = place / "keys.jsonl"
    keys.write_text("".join(f'"row-{number:08d}"\n' for number in range(rows)))
    select = f"SELECT row_number() OVER () AS row, * FROM '{place / 'truth.csv'}'"
    duckdb.connect().execute(f"COPY ({select}) TO '{place / 'source.parquet'}'")
    for name, source in (("one", place / "source.parquet"), ("two", None)):
        answers = (AnswerFile(place / f"{name}.jsonl", keys),)
        build_planned(TablePlan(answers, response_schema=_SCHEMA, source_columns=source), place / f"{name}.json")


def plain(place: Path, against: str) -> int:
    """Read both sides line by line, and count pairs."""
    expected = dict(_labels(place / "two.jsonl")) if against == "batch" else {}
    if against == "column":
        with (place / "truth.csv").open(newline="") as file:
            expected = {row["id"]: row["truth"] for row in csv.DictReader(file)}
    pairs = Counter(
        (expected[key].strip().lower(), label.strip().lower()) for key, label in _labels(place / "one.jsonl")
    )
    return sum(rows for (one, other), rows in pairs.items() if one == other)


def _labels(path: Path) -> Any:
    with path.open() as file:
        for line in file:
            answer = json.loads(line)
            yield answer["key"], json.loads(answer["response"]["candidates"][0]["content"]["parts"][0]["text"])["label"]


def ours(place: Path, against: str, times: int) -> int:
    """Compare the tables, so many times."""
    from gemini_batch_mcp.batches.answers._pairs import OTHER, Sides, compared_rows
    from gemini_batch_mcp.domain import Column
    from gemini_batch_mcp.results.query.queries import RELATION, QueryEngine, Stop
    from gemini_batch_mcp.results.store import ResultTable

    folders = {RELATION: ResultTable.open(place / "one.json").folder}
    if is_batch := against == "batch":
        folders[OTHER] = ResultTable.open(place / "two.json").folder
    expected = Column("label" if is_batch else "truth", "VARCHAR")
    sides = Sides(Column("label", "VARCHAR"), expected, is_batch)
    with QueryEngine() as engine:
        for _ in range(times):
            found = compared_rows(engine, sides, folders, limit=20, max_pairs=60, stop=Stop())
    return found.counted.equal


def _run(*arguments: str) -> dict[str, Any]:
    done = subprocess.run([sys.executable, __file__, "--only", *arguments], capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> None:
    """Print the seconds of both ways and their ratio, or be one of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--only", nargs=3, metavar=("TIMES", "AGAINST", "PLACE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        times, against, place = options.only
        equal = ours(Path(place), against, int(times)) if int(times) else plain(Path(place), against)
        spent = [resource.getrusage(kind) for kind in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        seconds = sum(one.ru_utime + one.ru_stime for one in spent)
        sys.stdout.write(
            json.dumps({"equal": equal, "seconds": seconds, "peak_mb": max(one.ru_maxrss for one in spent) / 1024})
        )
        return
    missed = False
    with tempfile.TemporaryDirectory(prefix="gemini-batch-comparing-") as name:
        write_files(Path(name), options.rows)
        build_tables(Path(name), options.rows)
        for against in ("column", "batch"):
            found: dict[int, list[dict[str, Any]]] = {0: [], 1: [], 1 + _REPEATS: []}
            for times in [*found] * _TURNS:
                found[times].append(_run(str(times), against, name))
            assert len({one["equal"] for turns in found.values() for one in turns}) == 1, found
            best = {times: min(one["seconds"] for one in turns) for times, turns in found.items()}
            peak = {times: max(one["peak_mb"] for one in turns) for times, turns in found.items()}
            # A server has loaded its engine long before: what a comparison takes is what each further one does.
            seconds = (best[1 + _REPEATS] - best[1]) / _REPEATS
            ratio = seconds / best[0]
            missed |= ratio > MAX_RATIO
            verdict = "met" if ratio <= MAX_RATIO else "MISSED"
            sys.stdout.write(
                f"{options.rows:,} rows against a {against}: {seconds:.3f} s, plain {best[0]:.2f} s; "
                f"1/{1 / ratio:.0f} (≤ 1/20, {verdict}); peak {peak[1]:.0f} MB, plain {peak[0]:.0f} MB\n"
            )
    sys.exit(missed)


if __name__ == "__main__":
    main()
