"""Every command of README, skill and cookbook is run, on files as they describe them, and none of them fails."""

import json
import re
import stat
import subprocess
from pathlib import Path

import openpyxl
import pytest

from published.documents import README, ROOT, SKILL, blocks, our_commands, text_of
from support.conversation import Run, request_file
from support.extent import long
from support.sources import pdf, png

COOKBOOK = text_of(ROOT / "docs" / "cookbook.md")
PRIVACY = text_of(ROOT / "PRIVACY.md")
#: They run until they are ended: test_serving.py starts them, and test_documents.py reads how they are given.
ENDLESS = {"serve", "sandbox"}
#: What a command says that finds nothing to do: no row has failed here, and jobs have ended at the first look.
NOTHING_TO_DO = ("has no rows that are failed or missing", "has already ended")


@pytest.fixture
def kitchen(data: Path) -> Path:
    """The files that README and cookbook name."""
    moods = ["good" if number % 3 else "bad" for number in range(30)]
    rows = [f'{number},mug,"Review {number}: it works, mostly.",{mood}' for number, mood in enumerate(moods)]
    for name, label in (("reviews.csv", "truth"), ("labelled.csv", "label")):
        (data / name).write_text("\n".join([f"id,product,text,{label}", *rows]) + "\n")
    (schema,) = (block.text for block in blocks(COOKBOOK) if block.form == "json")
    for name in ("mood.json", "bill.json"):
        (data / name).write_text(schema)
    book = openpyxl.Workbook()
    book.active.title = "Tickets"
    for row in [("subject", "body"), ("Broken", "The lid is cracked."), ("Late", "Where is it?")]:
        book.active.append(row)
    book.create_sheet("Notes").append(("nothing",))
    book.save(data / "support.xlsx")
    for folder in ("photos", "contracts", "scans"):
        (data / folder).mkdir()
    for number in range(3):
        (data / "photos" / f"{number}.png").write_bytes(png(number))
        for folder in ("contracts", "scans"):
            (data / folder / f"{number}.pdf").write_bytes(pdf(1 + number))
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
    request_file(data, name="requests.jsonl")
    return data


def assert_works(done: "subprocess.CompletedProcess[str]") -> None:
    is_idle = any(said in done.stderr for said in NOTHING_TO_DO)
    assert done.returncode == 0 or is_idle, f"{done.args}\n{done.stdout}{done.stderr}"


@pytest.mark.timeout(900)
@long
def test_every_task_of_the_cookbook_works_in_order(run_at_port: Run, kitchen: Path, tmp_path: Path) -> None:
    tasks = COOKBOOK.split("\n## ")[1:]
    assert [task.partition(".")[0] for task in tasks] == [str(number) for number in range(1, 13)]
    assert all(map(our_commands, tasks))
    for words in our_commands(COOKBOOK):
        # What stands for any command says how it is tried.
        if words != ["--sandbox"]:
            assert_works(run_at_port(*words))
    # What is left is what PRIVACY.md says, in a directory that nobody else may enter.
    home = tmp_path / "home"
    told = re.findall(r"^\| `([^`]+)` \|", PRIVACY, re.MULTILINE)
    assert len(told) == 9
    # No task takes its source from an object store; tests/stores holds what is left of one.
    for place in set(told) - {"copies/*"}:
        assert list(home.glob(place)), place
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    saved = {path.name for path in kitchen.iterdir() if path.is_file()}
    assert {"moods.csv", "teams.xlsx", "captions.csv", "answers.csv", "vectors.npy", "from-openai.jsonl"} <= saved


@pytest.mark.timeout(900)
@long
def test_every_command_of_readme_and_skill_works_in_order(
    run: Run, at_port: dict[str, str], kitchen: Path, tmp_path: Path
) -> None:
    """As somebody with Claude Code and a key does what stands there, one after the other."""
    user = tmp_path / "user"
    user.mkdir()
    (user / ".claude.json").write_text("{}")
    for words in dict.fromkeys(map(tuple, our_commands(text_of(README)) + our_commands(text_of(SKILL)))):
        if words and words[0] not in ENDLESS:
            assert_works(run(*words, env=at_port | {"HOME": str(user)}, sandbox=False))
    assert (user / ".claude.json").read_text() == "{}"
    assert {"moods.csv", "tried.html", "compared.html", "moods.html"} <= {path.name for path in kitchen.iterdir()}
