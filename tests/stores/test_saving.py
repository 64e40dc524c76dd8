"""Results saved as objects of S3 and Cloud Storage: whole or not at all, and over nothing of anybody else's."""

import subprocess
import sys

import anyio
import pytest

from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.threads import in_thread
from support.cloud.buckets import AWS_ENV, Bucket, S3Bucket, Wire
from support.conversation import Conversation, newest, process_env
from support.extent import long

pytestmark = pytest.mark.anyio


async def answered(talk: Conversation, sandbox: Sandbox, *texts: str, cell: str = "") -> str:
    """A batch of so many rows that has been answered; returns its id."""
    path = talk.settings.working_directory / "reviews.csv"
    rows = "".join(f"r{number},{text},{cell}\n" for number, text in enumerate(texts, 1))
    path.write_text(f"id,review,cell\n{rows}", encoding="utf-8")
    order = {"source": str(path), "prompt": "Is this positive? {{review}}", "key_column": "id"}
    batch = str((await talk.call("create_batch", **order))["batch_id"])
    sandbox.finish(newest(sandbox))
    return batch


async def test_results_are_saved_as_one_object_and_the_same_again_is_that_object(
    talk: Conversation, bucket: Bucket, sandbox: Sandbox
) -> None:
    batch = await answered(talk, sandbox, "fine", "bad")
    address = f"{bucket.root}in/out.csv"
    results = await talk.call("get_results", batch=batch, save_to=address)
    assert results["saved"]["path"] == address
    assert results["saved"]["rows"] == 2
    content = bucket.get("in/out.csv")
    assert content.decode("utf-8-sig").splitlines()[0].startswith("id,review,cell,")
    assert results["saved"]["bytes"] == len(content)

    again = await talk.call("get_results", batch=batch, save_to=address)
    assert again["saved"] == results["saved"]
    assert bucket.names() == ["in/out.csv"]
    assert f"to {address}" in await talk.text("get_results", batch=batch, save_to=address)
    # A folder takes the file's default name.
    named = await talk.call("get_results", batch=batch, save_to=f"{bucket.root}in/", format="jsonl")
    assert named["saved"]["path"] == f"{bucket.root}in/{batch}.jsonl"


@long
async def test_ours_is_replaced_and_what_somebody_else_has_written_is_not(
    talk: Conversation, bucket: Bucket, sandbox: Sandbox
) -> None:
    batch = await answered(talk, sandbox, "fine", "[[sandbox:error:8]] [[sandbox:once]]")
    address = bucket.put("in/out.csv", b"somebody else's")
    results = await talk.call("get_results", batch=batch, save_to=address)
    assert results["saved"]["path"] == f"{bucket.root}in/out-2.csv"
    assert any("out.csv is another file, which was left as it is" in warning for warning in results["warnings"])
    assert bucket.get("in/out.csv") == b"somebody else's"
    first = bucket.get("in/out-2.csv")

    await talk.call("retry_failed", batch=batch)
    sandbox.finish(newest(sandbox))
    results = await talk.call("get_results", batch=batch, save_to=address)
    assert results["saved"]["path"] == f"{bucket.root}in/out-2.csv"
    assert bucket.get("in/out-2.csv") != first

    bucket.put("in/out-2.csv", b"changed by hand")
    results = await talk.call("get_results", batch=batch, save_to=address)
    assert results["saved"]["path"] == f"{bucket.root}in/out-3.csv"
    assert bucket.get("in/out-2.csv") == b"changed by hand"


@long
async def test_an_object_that_appears_while_it_is_written_is_left_as_it_is(
    talk: Conversation, bucket: Bucket, wire: Wire, sandbox: Sandbox
) -> None:
    batch = await answered(talk, sandbox, "fine")
    came: list[bytes] = []

    def interfere(piece: bytes) -> None:
        if piece.startswith((b"PUT /", b"POST /")) and not came:
            came.append(piece)
            bucket.put("in/out.csv", b"somebody else's")

    wire.on_sent = interfere
    results = await talk.call("get_results", batch=batch, save_to=f"{bucket.root}in/out.csv")
    assert came
    assert results["saved"]["path"] == f"{bucket.root}in/out-2.csv"
    assert bucket.get("in/out.csv") == b"somebody else's"


@long
async def test_a_lost_reply_makes_no_second_object(
    talk: Conversation, bucket: Bucket, wire: Wire, sandbox: Sandbox
) -> None:
    batch = await answered(talk, sandbox, "fine")
    arm: list[bytes] = []

    def cut(piece: bytes) -> None:
        if piece.startswith((b"PUT /", b"POST /")) and not arm:
            arm.append(piece)
            wire.cuts = [0]

    wire.on_sent = cut
    results = await talk.call("get_results", batch=batch, save_to=f"{bucket.root}in/out.csv")
    assert (arm != [], wire.cuts) == (True, [])
    assert results["saved"]["path"] == f"{bucket.root}in/out.csv"
    assert bucket.names() == ["in/out.csv"]


@long
async def test_nothing_is_written_outside_of_the_roots(talk: Conversation, bucket: Bucket, sandbox: Sandbox) -> None:
    batch = await answered(talk, sandbox, "fine")
    for rest in ("out/out.csv", "in2/out.csv", "in/../out.csv", "in/.hidden/out.csv"):
        refused = await talk.refusal("get_results", batch=batch, save_to=f"{bucket.root}{rest}")
        assert "lies outside of what this server may use" in refused or "begins with a dot" in refused
    assert bucket.names() == []
    refused = await talk.refusal("get_results", batch=batch, save_to="ftp://example/out.csv")
    assert "files of this machine, to s3:// and to gs:// only" in refused


@long
@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet", "out.xlsx"])
async def test_every_format_is_saved_as_the_file_that_it_would_be(
    talk: Conversation, bucket: Bucket, sandbox: Sandbox, name: str
) -> None:
    batch = await answered(talk, sandbox, "fine", "bad")
    local = await talk.call("get_results", batch=batch, save_to=name)
    results = await talk.call("get_results", batch=batch, save_to=f"{bucket.root}in/{name}")
    assert results["saved"]["rows"] == local["saved"]["rows"] == 2
    if name != "out.xlsx":  # whose bytes hold a time
        assert bucket.get(f"in/{name}") == (talk.settings.working_directory / name).read_bytes()


@long
async def test_a_large_object_comes_in_parts_that_are_dropped_where_it_may_not_be_made(
    talk: Conversation, bucket: Bucket, wire: Wire, sandbox: Sandbox
) -> None:
    batch = await answered(talk, sandbox, *(["fine"] * 40), cell="x" * 1_000_000)
    seen: list[int] = []

    def interfere(piece: bytes) -> None:
        seen.append(len(piece))
        if sum(seen) > 30_000_000 and "in/big.csv" not in bucket.names():
            bucket.put("in/big.csv", b"somebody else's")

    wire.on_sent = interfere
    results = await talk.call("get_results", batch=batch, save_to=f"{bucket.root}in/big.csv")
    assert results["saved"]["path"] == f"{bucket.root}in/big-2.csv"
    assert results["saved"]["bytes"] == len(bucket.get("in/big-2.csv")) > 40_000_000
    assert bucket.get("in/big.csv") == b"somebody else's"
    assert not isinstance(bucket, S3Bucket) or bucket.unfinished() == 0


@long
@pytest.mark.parametrize("megabytes", [1, 30])
async def test_a_kill_during_an_upload_leaves_no_object_and_the_same_call_makes_it(
    talk: Conversation, bucket: Bucket, wire: Wire, sandbox: Sandbox, megabytes: int
) -> None:
    batch = await answered(talk, sandbox, *(["fine"] * megabytes), cell="x" * 1_000_000)
    await talk.call("get_results", batch=batch)
    address = f"{bucket.root}in/out.csv"
    google = talk.settings.google
    with sandbox.listening() as url:
        env = process_env(
            **AWS_ENV,
            AWS_ENDPOINT_URL=wire.url,
            STORAGE_EMULATOR_HOST=wire.url,
            GOOGLE_APPLICATION_CREDENTIALS=google.credentials_path,
            GEMINI_API_KEY="test-key-do-not-show",
            GOOGLE_GEMINI_BASE_URL=url,
            GEMINI_BATCH_HOME=str(talk.settings.home),
            GEMINI_BATCH_ROOTS=f"{talk.settings.working_directory}:{bucket.root}in/",
        )
        wire.hold_bytes = megabytes * 700_000
        command = [sys.executable, "-m", "gemini_batch_mcp", "get-results", batch, "--output", address]
        async with await anyio.open_process(command, env=env, stdout=subprocess.DEVNULL) as process:
            assert await in_thread(wire.has_come.wait, 60)
            process.kill()
    assert bucket.names() == []
    wire.hold_bytes = 0
    results = await talk.call("get_results", batch=batch, save_to=address)
    assert results["saved"]["path"] == address
    assert bucket.names() == ["in/out.csv"]


@long
async def test_vectors_lie_beside_their_table_with_their_keys(
    talk: Conversation, bucket: Bucket, sandbox: Sandbox
) -> None:
    rows = [{"key": text, "prompt": text} for text in ("one", "two")]
    created = await talk.call("create_batch", requests=rows, task="embed", model="gemini-embedding-2")
    sandbox.finish(newest(sandbox))
    saved = (await talk.call("get_results", batch=created["batch_id"], save_to=f"{bucket.root}in/out.csv"))["saved"]
    assert saved["beside"] == ["out.vectors.npy", "out.vectors.keys.jsonl"]
    assert bucket.names() == ["in/out.csv", "in/out.vectors.keys.jsonl", "in/out.vectors.npy"]
    again = (await talk.call("get_results", batch=created["batch_id"], save_to=f"{bucket.root}in/out.csv"))["saved"]
    assert again == saved
