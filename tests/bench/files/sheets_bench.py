"""A sheet of a million rows, read: the processor time and memory of ours against openpyxl's read-only mode.

Each reads in processes of its own. Ours counts with the process that it has read the sheet; the row count has to agree.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

#: Below so many rows, starting a process counts for too much.
BOUND_ROWS: Final = 1_000_000
#: Of ours to openpyxl read-only, and of the largest of our processes (our choice).
MAX_RATIO: Final = 1 / 8
MAX_MB: Final = 400


def write_book(path: Path, rows: int) -> None:
    from xlsxwriter import Workbook

    with Workbook(str(path), {"constant_memory": True, "strings_to_formulas": False}) as workbook:
        sheet = workbook.add_worksheet("reviews")
        sheet.write_row(0, 0, ("id", "product", "price", "weight", "review", "label"))
        for number in range(1, rows + 1):
            review = f"Bought it in week {number % 52}. It boils fast and stays cool."
            label = ("good", "bad", "mixed")[number % 3]
            sheet.write_row(number, 0, (f"r{number}", f"product {number % 7}", number % 100, number / 8, review, label))


def openpyxl_rows(path: Path) -> int:
    from openpyxl import load_workbook

    book = load_workbook(path, read_only=True)
    return sum(1 for _ in book["reviews"].iter_rows(values_only=True)) - 1


def our_rows(path: Path) -> int:
    from gemini_batch_mcp.intake.workbooks.sheets import write_sheet

    return write_sheet(path, path.with_name("rows.csv")).row_count


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rows", type=int, default=100_000)
    arguments.add_argument("--only", nargs=2, metavar=("WHO", "BOOK"))
    options = arguments.parse_args()
    if options.only:
        who, book = options.only[0], Path(options.only[1])
        rows = openpyxl_rows(book) if who == "openpyxl" else our_rows(book)
        used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        seconds = sum(sum(each[:2]) for each in used)
        peak_mb = max(each.ru_maxrss for each in used) / 1024
        sys.stdout.write(json.dumps({"rows": rows, "seconds": seconds, "peak_mb": peak_mb}))
        return
    with tempfile.TemporaryDirectory() as place:
        book = Path(place, "book.xlsx")
        write_book(book, options.rows)
        found = {}
        for who in ("ours", "openpyxl"):
            command = [sys.executable, __file__, "--only", who, str(book)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found[who] = json.loads(done.stdout)
            assert found[who]["rows"] == options.rows, found[who]
            sys.stdout.write(f"{who}: {found[who]['seconds']:.1f} s, peak {found[who]['peak_mb']:.0f} MB\n")
            sys.stdout.flush()
    ratio = found["ours"]["seconds"] / found["openpyxl"]["seconds"]
    sys.stdout.write(f"ours to openpyxl read-only: {ratio:.3f} (at most {MAX_RATIO:.3f} from {BOUND_ROWS:,} rows on)\n")
    sys.exit(options.rows >= BOUND_ROWS and (ratio > MAX_RATIO or found["ours"]["peak_mb"] > MAX_MB))


if __name__ == "__main__":
    main()
