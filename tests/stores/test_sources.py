"""Objects of S3 and Cloud Storage as sources of orders with a key of the Gemini API, through their real clients."""

import gzip
import io
import sys
from dataclasses import replace
from pathlib import Path

import openpyxl
import pytest
from mcp.client.context import ClientRequestContext
from mcp_types import ElicitRequestParams, ElicitResult

from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.settings import Cloud, Settings
from support.cloud.buckets import AWS_ENV, Bucket, Wire, local_copy
from support.conversation import Conversation, Person, converse, line, newest, sent, spoken
from support.extent import long

pytestmark = pytest.mark.anyio

REVIEWS = b"id,review\nr1,fine\nr2,bad\nr3,good\n"
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c4944415408d763f8cfc000000301010018dd8db0"
    "0000000049454e44ae426082"
)
PROMPT = {"prompt": "Is this positive? {{review}}", "key_column": "id"}


async def test_a_table_is_copied_once_and_ordered_under_its_address(
    talk: Conversation, bucket: Bucket, sandbox: Sandbox
) -> None:
    order = {"source": bucket.put("in/reviews.csv", REVIEWS), **PROMPT}
    preview = await talk.call("preview_batch", **order)
    assert preview["request_count"] == 3

    created = await talk.call("create_batch", **order)
    batch = created["batch_id"]
    assert [entry["key"] for entry in sent(talk, batch)] == ["r1", "r2", "r3"]
    (copy,) = local_copy(talk.settings, "reviews.csv")
    assert copy.read_bytes() == REVIEWS
    assert copy.parent.stat().st_mode & 0o077 == 0
    again = await talk.call("create_batch", **order)
    assert (again["reused"], again["batch_id"]) == (True, batch)

    sandbox.finish(newest(sandbox))
    asked = await talk.call("query_results", batch=batch, sql="SELECT review FROM results ORDER BY key")
    assert asked["rows"] == [["fine"], ["bad"], ["good"]]


@long
async def test_rows_are_sent_again_although_the_object_is_gone(
    talk: Conversation, bucket: Bucket, sandbox: Sandbox
) -> None:
    source = bucket.put("in/reviews.csv", b"id,review\nr1,fine\nr2,[[sandbox:error:8]] [[sandbox:once]]\n")
    batch = (await talk.call("create_batch", source=source, **PROMPT))["batch_id"]
    sandbox.finish(newest(sandbox))
    await talk.call("get_results", batch=batch)
    bucket.put("in/reviews.csv", REVIEWS)
    again = await talk.call("retry_failed", batch=batch)
    assert again["request_count"] == 1


def book() -> bytes:
    written, workbook = io.BytesIO(), openpyxl.Workbook()
    for name in ("First", "Second"):
        sheet = workbook.create_sheet(name)
        for row in (("id", "review"), (f"of {name}", "fine")):
            sheet.append(row)
    del workbook["Sheet"]
    workbook.save(written)
    return written.getvalue()


@long
@pytest.mark.parametrize(
    ("name", "sheet", "keys"),
    [
        ("reviews.csv.gz", "", ["r1", "r2", "r3"]),
        ("book.xlsx", "#Second", ["of Second"]),
        ("a #1.jsonl", "", ["a", "b"]),
    ],
)
async def test_every_kind_of_file_is_read_as_one_of_this_machine(
    talk: Conversation, bucket: Bucket, name: str, sheet: str, keys: list[str]
) -> None:
    contents = {
        "reviews.csv.gz": gzip.compress(REVIEWS),
        "book.xlsx": book(),
        "a #1.jsonl": f"{line('a')}\n{line('b')}\n".encode(),
    }
    source = bucket.put(f"in/{name}", contents[name]) + sheet
    created = await talk.call("create_batch", source=source, **({} if name.endswith(".jsonl") else PROMPT))
    assert [entry["key"] for entry in sent(talk, created["batch_id"])] == keys
    again = await talk.call("create_batch", source=source, **({} if name.endswith(".jsonl") else PROMPT))
    assert again["reused"]


@long
async def test_an_object_that_changed_after_its_preview_is_another_order(talk: Conversation, bucket: Bucket) -> None:
    order = {"source": bucket.put("in/reviews.csv", REVIEWS), **PROMPT}
    assert (await talk.call("preview_batch", **order))["request_count"] == 3
    bucket.put("in/reviews.csv", REVIEWS + b"r4,new\n")
    created = await talk.call("create_batch", **order)
    assert [entry["key"] for entry in sent(talk, created["batch_id"])] == ["r1", "r2", "r3", "r4"]


@long
async def test_an_object_that_changes_while_the_user_is_asked_is_asked_about_again(
    talk: Conversation, bucket: Bucket, sandbox: Sandbox, era: str
) -> None:
    order = {"source": bucket.put("in/reviews.csv", REVIEWS), **PROMPT}
    person = Person()

    async def change(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
        bucket.put("in/reviews.csv", REVIEWS + b"r4,new\n")
        return await person(context, params)

    async with converse(replace(talk.settings, confirm_above_usd=0.0), sandbox, era, change) as asking:
        reply = await asking.raw("create_batch", **order)
    said = [question.partition(" to gemini")[0] for question in person.questions]
    asked = [f"gemini-batch-mcp asks: submit {count} requests of {order['source']}" for count in (3, 4)]
    if reply.is_error:
        assert "so their yes does not count. Nothing was submitted" in spoken(reply)
    assert (said, sandbox.creates) == ((asked[:1], 0) if reply.is_error else (asked, 1))


@long
async def test_files_that_a_table_names_are_looked_for_on_this_machine(
    talk: Conversation, bucket: Bucket, data: Path
) -> None:
    (data / "a.png").write_bytes(PNG)
    source = bucket.put("in/images.csv", b"id,image\n1,a.png\n2,gs://bucket/b.mp4\n")
    created = await talk.call("create_batch", source=source, prompt="What is this?", attach="image", key_column="id")
    parts = [entry["request"]["contents"][0]["parts"] for entry in sent(talk, created["batch_id"])]
    assert any("inlineData" in part for part in parts[0])
    assert any(part.get("fileData", {}).get("fileUri") == "gs://bucket/b.mp4" for part in parts[1])

    source = bucket.put("in/secrets.csv", b"id,image\n1,../ledger.sqlite3\n")
    order = {"source": source, "prompt": "What is this?", "attach": "image", "key_column": "id"}
    assert "outside the directories" in await talk.refusal("preview_batch", **order)


@long
async def test_a_cut_transfer_goes_on_where_it_was(talk: Conversation, bucket: Bucket, wire: Wire) -> None:
    rows = b"id,review\n" + b"".join(b"r%d,%s\n" % (number, b"fine " * 40) for number in range(5000))
    source = bucket.put("in/many.csv", rows)
    wire.cuts = [300_000, 400_000]
    assert (await talk.call("preview_batch", source=source, **PROMPT))["request_count"] == 5000
    assert wire.cuts == []
    (copy,) = local_copy(talk.settings, "many.csv")
    assert copy.read_bytes() == rows


@long
async def test_an_object_that_changes_while_it_is_read_is_not_ordered(
    talk: Conversation, bucket: Bucket, wire: Wire, sandbox: Sandbox
) -> None:
    rows = b"id,review\n" + b"".join(b"r%d,%s\n" % (number, b"fine " * 40) for number in range(5000))
    source = bucket.put("in/many.csv", rows)
    wire.cuts, wire.on_cut = [300_000], lambda: bucket.put("in/many.csv", REVIEWS)
    assert "changed while it was read; nothing was submitted" in await talk.refusal(
        "create_batch", source=source, **PROMPT
    )
    assert local_copy(talk.settings, "*") == []
    assert sandbox.creates == 0
    assert (await talk.call("create_batch", source=source, **PROMPT))["request_count"] == 3


async def test_what_may_not_be_read_or_is_not_there_is_refused_with_a_sentence(
    talk: Conversation, bucket: Bucket
) -> None:
    bucket.put("out/reviews.csv", REVIEWS)
    bucket.put("in2/reviews.csv", REVIEWS)
    for rest, words in (
        ("out/reviews.csv", "lies outside of what this server may use: {root}in/"),
        ("in2/reviews.csv", "lies outside"),
        ("in/../out/reviews.csv", "a piece that begins with a dot"),
        ("in/.env", "hidden files often hold secrets"),
        ("in/none.csv", "There is no object {root}in/none.csv. Check the address"),
        ("in/", "names no object"),
        ("in/*.csv", "is a pattern, and one order reads one object"),
    ):
        refused = await talk.refusal("preview_batch", source=f"{bucket.root}{rest}", **PROMPT)
        assert words.format(root=bucket.root) in refused
    assert local_copy(talk.settings, "*") == []


@long
async def test_another_bucket_is_refused_and_one_that_does_not_exist_is_named(
    talk: Conversation, bucket: Bucket, sandbox: Sandbox, era: str
) -> None:
    scheme = bucket.root.partition("://")[0]
    refused = await talk.refusal("preview_batch", source=f"{scheme}://another-bucket/in/reviews.csv", **PROMPT)
    assert "lies outside" in refused and "GEMINI_BATCH_ROOTS" in refused
    wide = replace(talk.settings, addresses=(f"{scheme}://another-bucket/",))
    async with converse(wide, sandbox, era) as other:
        refused = await other.refusal("preview_batch", source=f"{scheme}://another-bucket/in/reviews.csv", **PROMPT)
    assert "found nothing when asked to" in refused and "another-bucket" in refused


@long
async def test_an_object_larger_than_the_limit_is_not_copied(
    talk: Conversation, bucket: Bucket, sandbox: Sandbox, era: str
) -> None:
    source = bucket.put("in/reviews.csv", REVIEWS)
    async with converse(replace(talk.settings, max_file_bytes=20), sandbox, era) as small:
        refused = await small.refusal("preview_batch", source=source, **PROMPT)
    assert "has 33 bytes; objects of up to 20 are copied here (GEMINI_BATCH_MAX_FILE_BYTES)" in refused
    assert local_copy(talk.settings, "*") == []


@long
async def test_without_roots_of_its_kind_an_address_is_refused(
    talk: Conversation, bucket: Bucket, sandbox: Sandbox, era: str
) -> None:
    source = bucket.put("in/reviews.csv", REVIEWS)
    async with converse(replace(talk.settings, addresses=()), sandbox, era) as closed:
        refused = await closed.refusal("preview_batch", source=source, **PROMPT)
    assert "is in no root" in refused and "GEMINI_BATCH_ROOTS" in refused


async def test_credentials_that_are_not_there_are_told_with_the_command_that_makes_them(
    settings: Settings, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, era: str
) -> None:
    for name, value in {**AWS_ENV, "NO_GCE_CHECK": "true", "CLOUDSDK_CONFIG": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "GOOGLE_APPLICATION_CREDENTIALS"):
        monkeypatch.delenv(name, raising=False)
    roots = replace(settings, addresses=("s3://bucket/", "gs://bucket/"))
    wrong = replace(roots, google=Cloud(credentials_path=str(tmp_path / "none.json")))
    async with converse(roots, sandbox, era) as talk:
        assert "aws configure" in await talk.refusal("preview_batch", source="s3://bucket/a.csv", **PROMPT)
        refused = await talk.refusal("preview_batch", source="gs://bucket/a.csv", **PROMPT)
        assert "gcloud auth application-default login" in refused
    async with converse(wrong, sandbox, era) as talk:
        refused = await talk.refusal("preview_batch", source="gs://bucket/a.csv", **PROMPT)
        assert "GOOGLE_APPLICATION_CREDENTIALS names cannot be used" in refused


async def test_clients_that_are_not_installed_are_told_with_the_extra_that_has_them(
    settings: Settings, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, era: str
) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    monkeypatch.setitem(sys.modules, "google.cloud.storage", None)
    async with converse(replace(settings, addresses=("s3://bucket/", "gs://bucket/")), sandbox, era) as talk:
        for scheme, package in (("s3", "boto3"), ("gs", "google-cloud-storage")):
            refused = await talk.refusal("preview_batch", source=f"{scheme}://bucket/a.csv", **PROMPT)
            assert f"{package} is not installed; {scheme}:// needs it." in refused
            assert "pip install 'gemini-batch-mcp[cloud]'" in refused
