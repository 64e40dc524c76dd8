"""Results written for the user: in each format, over nothing of anybody else's, whole or not at all."""

import json
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from gemini_batch_mcp.domain import Order, ResultQuery
from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.settings import Settings
from support.conversation import converse, created, desk_of, newest, request_file, sharded, write_lines
from support.extent import few

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("format", "beginning"),
    [("jsonl", b'{"key":'), ("csv", b"key,text,status,error"), ("xlsx", b"PK"), ("parquet", b"PAR1")],
)
async def test_results_are_saved_in_each_format_once(
    settings: Settings, sandbox: Sandbox, data: Path, format: str, beginning: bytes
) -> None:
    async with converse(settings, sandbox) as talk:
        ordered = await talk.call("create_batch", source=request_file(data))
        sandbox.finish(newest(sandbox))
        saved = [
            (await talk.call("get_results", batch=ordered["batch_id"], save_to="out", format=format))["saved"]
            for _ in range(2)
        ]

    assert saved[0] == saved[1]
    assert (saved[0]["path"], saved[0]["rows"], saved[0]["format"]) == (str(data / "out"), 3, format)
    assert Path(saved[0]["path"]).read_bytes().startswith(beginning)
    assert sorted(path.name for path in data.iterdir()) == ["out", "reviews.jsonl"]


async def test_one_path_may_take_another_format_and_a_growing_batch(
    settings: Settings, sandbox: Sandbox, data: Path
) -> None:
    settings, source = sharded(settings, data)
    async with desk_of(settings, sandbox) as desk:
        batch = (await desk.place_order(Order(source=source))).status.batch.id
        first, second, third = created(sandbox)
        sandbox.finish(first)
        query = ResultQuery(save_to=str(data / "out.csv"), format="csv")
        assert (await desk.results(batch, query)).saved is not None
        for job in (second, third):
            sandbox.finish(job)
        saved = (await desk.results(batch, query)).saved
        assert saved is not None and (saved.path, saved.rows) == (data / "out.csv", 30)
        other = (await desk.results(batch, replace(query, format="jsonl"))).saved
        assert other is not None and other.path == data / "out.csv"
        assert json.loads(other.path.read_text("utf-8").splitlines()[0])["key"] == "k00"
        other.path.write_text("mine now", encoding="utf-8")
        third_saved = (await desk.results(batch, query)).saved
        assert third_saved is not None and third_saved.path == data / "out-2.csv"


async def test_vectors_are_saved_as_a_matrix_beside_the_table(settings: Settings, sandbox: Sandbox, data: Path) -> None:
    rows = [json.dumps({"key": f"e{n}", "request": {"content": {"parts": [{"text": f"t{n}"}]}}}) for n in range(3)]
    source = write_lines(data / "embed.jsonl", rows)
    async with desk_of(settings, sandbox) as desk:
        order = Order(source=source, task="embed", model="gemini-embedding-001")
        batch = (await desk.place_order(order)).status.batch.id
        sandbox.finish(newest(sandbox))
        query = ResultQuery(save_to=str(data / "vectors.parquet"), format="parquet")
        saved = (await desk.results(batch, query)).saved
        again = (await desk.results(batch, query)).saved

    assert saved is not None and saved == again
    assert [(file.path.name, file.format, file.rows) for file in saved.companions] == [
        ("vectors.vectors.npy", "npy", 3),
        ("vectors.vectors.keys.jsonl", "keys", 3),
    ]
    assert saved.companions[1].path.read_text("utf-8") == '"e0"\n"e1"\n"e2"\n'


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from gemini_batch_mcp.errors import StorageError
from gemini_batch_mcp.results.store import AnswerFile, ResultTable, build_table
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
directory = Path(sys.argv[1])
answers = [AnswerFile(directory / "answers.jsonl")]
if sys.argv[2] == "export":
    build_table(answers, directory / "results.json")
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
try:
    if sys.argv[2] == "build":
        build_table(answers, directory / "results.json")
    else:
        ResultTable.open(directory / "results.json").export(directory / "out", sys.argv[3])
except StorageError as error:
    print(error)
# What measures the coverage writes its own file at the end.
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
"""


@few(2)
@pytest.mark.skipif(sys.platform == "win32", reason="needs limits on the size of files")
@pytest.mark.parametrize("what", ["build", "export csv", "export jsonl", "export parquet"])
def test_a_disk_that_takes_no_more_is_a_sentence_and_leaves_nothing_half(tmp_path: Path, what: str) -> None:
    noise = random.Random(1)
    with (tmp_path / "answers.jsonl").open("w", encoding="utf-8") as file:
        for number in range(3000):
            text = "".join(noise.choices("abcdefghijklmnopqrstuvwxyz0123456789", k=400))
            part = {"content": {"parts": [{"text": text}]}, "finishReason": "STOP"}
            file.write(json.dumps({"key": f"k{number}", "response": {"candidates": [part]}}) + "\n")
    ran = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path), *what.split()], capture_output=True, text=True, check=True
    )

    assert "could not be" in ran.stdout and "Traceback" not in ran.stderr
    names = {path.name for path in tmp_path.iterdir()}
    folders = {name for name in names if name.startswith("results-")}
    assert names == {"answers.jsonl"} | (folders | {"results.json"} if what != "build" else set())
    assert len(folders) == (what != "build")
