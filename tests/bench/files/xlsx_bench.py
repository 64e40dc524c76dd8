"""A workbook of a million rows: the processor time of ours against XlsxWriter alone, in processes of their own."""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import duckdb

#: Of ours to XlsxWriter alone, which has its rows in memory already (our choice).
MAX_RATIO: Final = 1.2
#: Below so many rows, what else a machine does counts for too much.
BOUND_ROWS: Final = 1_000_000
COLUMNS: Final = """SELECT 'r' || i AS id, 'product ' || i % 7 AS product, i % 100 AS price, i / 8 AS weight,
    'Bought it in week ' || i % 52 || '. It boils fast and stays cool.' AS review,
    ['good', 'bad', 'mixed'][i % 3 + 1] AS label, i % 5 AS stars, 'ok' AS status FROM range({rows}) t(i)"""


def rows_in_memory(parts: Path) -> list[tuple[Any, ...]]:
    return duckdb.connect().execute(f"SELECT * FROM '{parts}'").fetchall()


def alone(rows: list[tuple[Any, ...]], destination: Path) -> None:
    """XlsxWriter as its documentation has it for large files."""
    from xlsxwriter import Workbook

    with Workbook(str(destination), {"constant_memory": True, "strings_to_formulas": False}) as workbook:
        sheets = 0
        for number, row in enumerate(rows):
            place = number % 1_048_575
            if not place:
                sheet = workbook.add_worksheet(f"sheet {sheets}")
                sheets += 1
            sheet.write_row(place, 0, row)


def ours(parts: Path, destination: Path) -> None:
    from gemini_batch_mcp.results.export.formats import export_selected

    export_selected(parts, destination, "xlsx", home=parts.parent, name="bench")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rows", type=int, default=100_000)
    arguments.add_argument("--only", nargs=2, metavar=("WHO", "PARTS"))
    options = arguments.parse_args()
    if options.only:
        who, parts = options.only[0], Path(options.only[1])
        rows = rows_in_memory(parts) if who == "alone" else []
        before = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
        destination = parts.with_name(f"{who}.xlsx")
        alone(rows, destination) if who == "alone" else ours(parts, destination)
        used = resource.getrusage(resource.RUSAGE_SELF)
        sys.stdout.write(json.dumps({"seconds": sum(used[:2]) - before, "peak_mb": used.ru_maxrss / 1024}))
        return
    with tempfile.TemporaryDirectory() as place:
        parts = Path(place, "rows.parquet")
        duckdb.connect().execute(f"COPY ({COLUMNS.format(rows=options.rows)}) TO '{parts}'")
        found = {}
        for who in ("alone", "ours"):
            command = [sys.executable, __file__, "--only", who, str(parts)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found[who] = json.loads(done.stdout)
            sys.stdout.write(f"{who}: {found[who]['seconds']:.1f} s, peak {found[who]['peak_mb']:.0f} MB\n")
        ratio = found["ours"]["seconds"] / found["alone"]["seconds"]
        sys.stdout.write(f"ours to XlsxWriter alone: {ratio:.2f} (at most {MAX_RATIO} from {BOUND_ROWS:,} rows on)\n")
        sys.exit(options.rows >= BOUND_ROWS and ratio > MAX_RATIO)


if __name__ == "__main__":
    main()
