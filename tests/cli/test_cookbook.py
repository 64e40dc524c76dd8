"""Every command of the cookbook is run, on files as it describes them, and none of them fails."""

import json
import re
import shlex
import stat
from collections.abc import Iterator
from pathlib import Path

import openpyxl
import pytest

from support.conversation import Run
from support.sources import pdf, png

COOKBOOK = (Path(__file__).parents[2] / "docs" / "cookbook.md").read_text(encoding="utf-8")
PRIVACY = (Path(__file__).parents[2] / "PRIVACY.md").read_text(encoding="utf-8")
TASKS = COOKBOOK.split("\n## ")[1:]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.fixture
def kitchen(data: Path) -> Iterator[Path]:
    """The files that the cookbook names."""
    rows = [f'{number},"Review {number}: it works, mostly.",{"good" if number % 3 else "bad"}' for number in range(30)]
    (data / "reviews.csv").write_text("id,text\n" + "\n".join(row.rpartition(",")[0] for row in rows) + "\n")
    (data / "labelled.csv").write_text("id,text,label\n" + "\n".join(rows) + "\n")
    (schema,) = blocks(COOKBOOK, "json")
    (data / "mood.json").write_text(schema)
    book = openpyxl.Workbook()
    book.active.title = "Tickets"
    for row in [("subject", "body"), ("Broken", "The lid is cracked."), ("Late", "Where is it?")]:
        book.active.append(row)
    book.create_sheet("Notes").append(("nothing",))
    book.save(data / "support.xlsx")
    for folder in ("photos", "contracts"):
        (data / folder).mkdir()
    for number in range(3):
        (data / "photos" / f"{number}.png").write_bytes(png(number))
        (data / "contracts" / f"{number}.pdf").write_bytes(pdf(1 + number))
    lines = [
        {
            "custom_id": f"q{number}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": "gpt-4o", "messages": [{"role": "user", "content": f"Say {number}"}]},
        }
        for number in range(3)
    ]
    (data / "openai.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    yield data


def test_every_task_of_the_cookbook_works_in_order(run_at_port: Run, kitchen: Path, tmp_path: Path) -> None:
    assert [task.partition(".")[0] for task in TASKS] == [str(number) for number in range(1, 13)]
    for task in TASKS:
        commands = [line for block in blocks(task, "sh") for line in block.splitlines()]
        commands += [line.split("  ", 1)[1] for block in blocks(task, "crontab") for line in block.splitlines()]
        commands += re.findall(r"^ExecStart=(.*)$", task, re.MULTILINE)
        assert commands, task
        for line in commands:
            program, *arguments = shlex.split(line)
            assert program == "gemini-batch-mcp"
            done = run_at_port(*arguments)
            assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    # What is left is what PRIVACY.md says, in a directory that nobody else may enter.
    home = tmp_path / "home"
    told = re.findall(r"^\| `([^`]+)` \|", PRIVACY, re.MULTILINE)
    assert len(told) == 8
    for place in told:
        assert list(home.glob(place)), place
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    saved = {path.name for path in kitchen.iterdir() if path.is_file()}
    assert {"moods.csv", "teams.xlsx", "captions.csv", "answers.csv", "vectors.npy", "from-openai.jsonl"} <= saved
