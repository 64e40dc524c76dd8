"""The main job on Google Cloud: the same tools, with Google's own clients of Vertex AI and Cloud Storage over HTTP."""

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gemini_batch_mcp.cli.doctor import examine
from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.sandbox.cloud.routes import TOKEN_PREFIX
from gemini_batch_mcp.settings import Cloud, Settings
from support.cloud.places import BUCKET, PROJECT, objects, on_cloud, put
from support.conversation import Conversation, converse, line, newest, request_file, sent, write_lines

pytestmark = pytest.mark.anyio


@pytest.fixture
def cloud(settings: Settings, sandbox: Sandbox) -> Iterator[Settings]:
    with on_cloud(settings, sandbox) as settings:
        yield settings


@pytest.fixture
async def talk(cloud: Settings, era: str) -> AsyncIterator[Conversation]:
    async with converse(cloud, None, era) as conversation:
        yield conversation


def reviews(data: Path, *texts: str) -> str:
    path = data / "reviews.csv"
    path.write_text("id,review\n" + "".join(f"r{n},{text}\n" for n, text in enumerate(texts, 1)), encoding="utf-8")
    return str(path)


async def test_a_table_is_previewed_ordered_followed_read_and_resent(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    order = {
        "source": reviews(data, "fine", "[[sandbox:error:8]] [[sandbox:once]]", "bad", "[[sandbox:error:3]]", "good"),
        "prompt": "Is this positive? {{review}}",
        "key_column": "id",
    }
    preview = await talk.call("preview_batch", **order)
    assert preview["request_count"] == 5
    assert any("Google Cloud" in warning for warning in preview["warnings"])
    assert objects(sandbox) == []

    created = await talk.call("create_batch", **order)
    batch = created["batch_id"]
    (job,) = created["jobs"]
    assert job["name"].startswith("projects/123456789012/locations/global/batchPredictionJobs/")
    (requests,) = objects(sandbox)
    assert requests.startswith(f"gemini-batch/{batch}/{batch}-1.1-")

    sandbox.finish(newest(sandbox))
    status = await talk.call("check_status", batch=batch, wait_seconds=5)
    assert status["state"] == "JOB_STATE_SUCCEEDED"
    assert status["counts"] == {"total": 5, "succeeded": 3, "failed": 2, "pending": 0}

    results = await talk.call("get_results", batch=batch, view="rows")
    rows = {row["key"]: row for row in results["rows"]}
    assert [row["key"] for row in results["rows"]] == ["r1", "r2", "r3", "r4", "r5"]
    assert [row["status"] for row in results["rows"]] == ["ok", "failed", "ok", "failed", "ok"]
    assert rows["r4"]["error"] == "code 3: [sandbox] This row was made to fail with code 3."
    assert results["integrity_ok"]
    assert results["usage"]["cost_usd"] > 0
    # What passes by itself and what does not is told apart by the words of Vertex AI.
    asked = await talk.call(
        "query_results", batch=batch, sql="SELECT key, error_code FROM results WHERE status='failed'"
    )
    assert asked["rows"] == [["r2", 8], ["r4", 3]]

    again = await talk.call("retry_failed", batch=batch)
    sandbox.finish(newest(sandbox))
    assert again["request_count"] == 1
    results = await talk.call("get_results", batch=batch, view="rows")
    assert {row["key"]: row["status"] for row in results["rows"]}["r2"] == "ok"

    assert {label for job in sandbox.state.jobs(9, None, 2**62, is_cloud=True) for label in job.cloud.split('"')} >= {
        "gemini_batch_tag"
    }
    deleted = await talk.call("delete_batch", batch=batch, confirm=True)
    assert deleted["deleted"]["local"]
    assert len(deleted["deleted"]["jobs"]) == len(deleted["deleted"]["files"]) == 2
    # The answers are the user's.
    assert all("/answers-" in name for name in objects(sandbox))
    assert {entry["name"].partition("/answers-")[0] for entry in deleted["not_deleted"]} == {
        f"gs://sandbox-bucket/gemini-batch/{batch}"
    }


async def test_a_lost_reply_is_found_by_its_label_and_a_cancelled_job_keeps_its_rows(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    sandbox.cut_next("jobs.create", when="after")
    created = await talk.call("create_batch", source=request_file(data, 4))
    batch = created["batch_id"]
    assert sandbox.creates == 1
    assert created["jobs"][0]["name"]
    (looked,) = [request for request in sandbox.requests if request.route == "jobs.list"]
    assert "labels.gemini_batch_tag" in looked.query
    # Ready lines without a role would all fail there.
    assert {entry["request"]["contents"][0]["role"] for entry in sent(talk, batch)} == {"user"}
    seen = await talk.call("check_status", batch=created["jobs"][0]["name"].rpartition("/")[2])
    assert seen["batch_id"] == batch

    sandbox.advance(newest(sandbox))
    cancelled = await talk.call("cancel_batch", batch=batch)
    assert cancelled["state"] == "JOB_STATE_CANCELLING"
    sandbox.advance(newest(sandbox))
    results = await talk.call("get_results", batch=batch, view="rows")
    assert results["state"] == "JOB_STATE_CANCELLED"
    assert [row["status"] for row in results["rows"]] == ["ok", "ok", "missing", "missing"]


async def test_parts_of_answers_that_are_not_there_or_come_twice_are_noticed(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    rows = [line("a"), line("b", "[[sandbox:duplicated]]"), line("c", "[[sandbox:no_key]]"), line("d")]
    created = await talk.call("create_batch", source=write_lines(data / "rows.jsonl", rows), reuse="never")
    batch, name = created["batch_id"], newest(sandbox)
    sandbox.finish(name, "PARTIALLY_SUCCEEDED", error={"code": 5, "message": "a shard was unreadable"})
    (part,) = [entry for entry in objects(sandbox) if entry.endswith("-00001-of-00003")]
    kept = sandbox.state.object(f"{BUCKET}/{part}")
    assert kept is not None
    sandbox.state.remove_object(kept.name)
    refused = await talk.refusal("get_results", batch=batch)
    assert "not there yet" in refused
    sandbox.state.save(kept)

    results = await talk.call("get_results", batch=batch, view="rows")
    assert {row["key"]: row["status"] for row in results["rows"]} == {"a": "ok", "b": "ok", "c": "missing", "d": "ok"}
    assert (results["summary"]["duplicate"], results["summary"]["unexpected"]) == (1, 1)
    status = await talk.call("check_status", batch=batch)
    assert status["jobs"][0]["error"] == "code 5: Partial failure: a shard was unreadable"


async def test_a_large_file_goes_in_pieces_and_is_put_there_once(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    rows = [line(f"k{number}", "x" * 1_000_000) for number in range(10)]
    source = write_lines(data / "large.jsonl", rows)
    sandbox.cut_next("objects.chunk", when="before", at_byte=3_000_000)
    created = await talk.call("create_batch", source=source)
    batch = created["batch_id"]
    (stored,) = objects(sandbox)
    requests = talk.settings.home / "batches" / batch / "requests.jsonl"
    record = sandbox.state.object(f"{BUCKET}/{stored}")
    assert record is not None
    assert sandbox.cloud.objects.path(record).read_bytes() == requests.read_bytes()
    assert sum(request.route == "objects.chunk" for request in sandbox.requests) >= 3


async def test_a_file_that_several_rows_attach_is_put_into_the_bucket_once_and_goes_with_the_batch(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    (data / "plan.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(2_000_000))
    (data / "rows.csv").write_text("id,file\n" + "".join(f"k{n},plan.png\n" for n in range(4)), encoding="utf-8")
    created = await talk.call(
        "create_batch", source=str(data / "rows.csv"), prompt="What is it? {{id}}", attach="file", key_column="id"
    )
    batch = created["batch_id"]
    named = {entry["request"]["contents"][0]["parts"][0]["fileData"]["fileUri"] for entry in sent(talk, batch)}
    (uri,) = named
    assert uri.startswith(f"gs://{BUCKET}/gemini-batch/{batch}/plan-")
    assert uri.removeprefix(f"gs://{BUCKET}/") in objects(sandbox)
    sandbox.finish(newest(sandbox))
    assert (await talk.call("get_results", batch=batch))["summary"]["succeeded"] == 4
    deleted = await talk.call("delete_batch", batch=batch, confirm=True)
    assert uri in deleted["deleted"]["files"]


async def test_what_google_cloud_does_not_offer_is_refused_with_what_to_do(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    source = request_file(data)
    for order, words in (
        ({"source": source, "delivery": "now"}, "limit_rows"),
        ({"source": source, "delivery": "inline"}, "delivery='file'"),
        ({"source": source, "task": "embed", "model": "gemini-embedding-2"}, "Gemini API key"),
        ({"source": "files/abc"}, "local file"),
        ({"source": "gs://bucket/path/rows.jsonl"}, "GEMINI_BATCH_ROOTS"),
        ({"source": f"gs://{BUCKET}/none/*.jsonl"}, "0 objects match"),
        ({"source": f"gs://{BUCKET}/none.jsonl"}, "There is no gs://"),
        ({"source": source, "model": "gemini-9-unheard-of"}, "gemini-9-unheard-of"),
    ):
        assert words in await talk.refusal("preview_batch", **order)
    cached = write_lines(data / "cached.jsonl", [line("a", cachedContent="cachedContents/x")])
    preview = await talk.call("preview_batch", source=cached)
    assert "Google Cloud" in preview["problems"][0]["message"]
    assert sandbox.creates == 0


async def test_what_is_missing_is_named_with_what_makes_it(
    settings: Settings, cloud: Settings, sandbox: Sandbox, data: Path, tmp_path: Path
) -> None:
    assert cloud.cloud is not None
    wrong = tmp_path / "wrong.json"
    wrong.write_text("{}", encoding="utf-8")
    for lacking, words in (
        (Cloud(bucket=BUCKET), ("GOOGLE_CLOUD_PROJECT", "project's id")),
        (Cloud(project=PROJECT), ("GEMINI_BATCH_BUCKET", "gcloud storage buckets create gs://NAME")),
        (replace(cloud.cloud, credentials_path=str(wrong)), ("GOOGLE_APPLICATION_CREDENTIALS", "gcloud auth")),
        (replace(cloud.cloud, bucket="not-there"), ("bucket does not exist", "GEMINI_BATCH_BUCKET")),
        (replace(cloud.cloud, project="other"), ("Permission denied", "roles/aiplatform.user in project other")),
    ):
        changed = replace(settings, home=tmp_path / words[0].replace(" ", ""), api_key=None, cloud=lacking)
        async with converse(changed, None) as talk:
            refused = await talk.refusal("create_batch", source=request_file(data), confirm=True)
            assert all(word in refused for word in words), refused
            assert TOKEN_PREFIX not in refused
    assert sandbox.creates == 0


async def test_doctor_says_what_is_there_and_a_token_that_is_repeated_is_not_shown(
    cloud: Settings, sandbox: Sandbox, tmp_path: Path
) -> None:
    report = await examine(cloud, None, tmp_path, {})
    found = {check.name: check for check in report.checks}
    assert report.ok, report.checks
    assert found["bucket"].finding == "gs://sandbox-bucket can be read and written"
    assert "project sandbox-project, global, answers" in found["google cloud"].finding

    said = {"error": {"code": 400, "message": f"Bad token {TOKEN_PREFIX}tests."}}
    sandbox.fail_next("publishers.list", status=400, body=said)
    report = await examine(cloud, None, tmp_path, {})
    assert not report.ok
    assert TOKEN_PREFIX not in str(report.checks)


async def test_doctor_looks_at_bigquery_and_says_which_command_mends_it(
    cloud: Settings, sandbox: Sandbox, tmp_path: Path
) -> None:
    async def found(*prefixes: str) -> tuple[bool, list[tuple[str, bool, str]]]:
        report = await examine(replace(cloud, addresses=prefixes), None, tmp_path, {})
        checks = [(check.name, check.ok, check.finding) for check in report.checks]
        return report.ok, [check for check in checks if check[0] in ("bigquery", "dataset")]

    before = len(sandbox.cloud.bigquery.statements)
    ok, ((_, is_good, said),) = await found()
    assert ok and is_good
    assert "statements can run in project sandbox-project" in said
    assert "whether tables may be made in one shows with the first order" in said

    ok, (_, there, gone, anothers) = await found(
        "bq://sandbox-project.sandbox_data.", "bq://sandbox-project.lacking.", "bq://other-project.data.table."
    )
    assert not ok
    assert there[1] and there[2].startswith("sandbox-project.sandbox_data is there, in US.")
    assert not gone[1] and gone[2].endswith(": bq mk --dataset --location=US sandbox-project:lacking")
    grant = r"GRANT \`roles/bigquery.dataEditor\` ON SCHEMA \`other-project.data\` TO"
    assert not anothers[1]
    assert anothers[2].endswith(f"""{grant} 'user:$(gcloud config get-value account)'\"""")
    assert len(sandbox.cloud.bigquery.statements) == before

    denied = {"error": {"code": 403, "message": "Access Denied: no bigquery.jobs.create", "errors": []}}
    switched_off = {"error": {"code": 403, "message": "BigQuery API has not been used in project x before."}}
    for body, command in (
        (denied, "gcloud projects add-iam-policy-binding sandbox-project --member="),
        (switched_off, "gcloud services enable bigquery.googleapis.com --project=sandbox-project"),
    ):
        sandbox.fail_next("queries.insert", status=403, body=body)
        ok, ((_, is_good, said),) = await found()
        # Who orders no tables needs nothing of it.
        assert ok and is_good and command in said and "Only orders from bq://… need it." in said
    sandbox.fail_next("queries.insert", status=403, body=denied)
    ok, ((_, is_good, said),) = await found("bq://sandbox-project.sandbox_data.")
    assert not ok and not is_good and said.endswith("--role=roles/bigquery.jobUser")


def said(key: str, text: str) -> bytes:
    """One request line with a role, as Google Cloud wants it."""
    request = {"contents": [{"role": "user", "parts": [{"text": text}]}]}
    return json.dumps({"key": key, "request": request}).encode()


async def test_lines_in_cloud_storage_are_checked_priced_and_ordered_where_they_lie(
    talk: Conversation, sandbox: Sandbox
) -> None:
    source = put(
        sandbox,
        "in/rows.jsonl",
        [said("a", "one"), said("b", "[[sandbox:dropped]] [[sandbox:once]]"), said("c", "three")],
    )
    preview = await talk.call("preview_batch", source=f"gs://{BUCKET}/in/*.jsonl")
    assert (preview["request_count"], preview["shard_count"], preview["problem_count"]) == (3, 1, 0)
    assert preview["estimate"]["cost_usd_high"] > 0
    assert preview["sample"][0]["key"] == "a"

    created = await talk.call("create_batch", source=source)
    batch = created["batch_id"]
    assert created["request_count"] == 3
    assert created["estimate"] == preview["estimate"]
    # Read once, and nothing was put there or kept here but the keys.
    assert sum(request.route == "objects.media" for request in sandbox.requests) == 1
    assert objects(sandbox) == ["in/rows.jsonl"]
    assert not (talk.settings.home / "batches" / batch / "requests.jsonl").exists()
    again = await talk.call("create_batch", source=source)
    assert (again["reused"], again["batch_id"]) == (True, batch)

    sandbox.finish(newest(sandbox))
    results = await talk.call("get_results", batch=batch, view="rows")
    assert {row["key"]: row["status"] for row in results["rows"]} == {"a": "ok", "b": "missing", "c": "ok"}
    resent = await talk.call("retry_failed", batch=batch)
    assert resent["request_count"] == 1
    sandbox.finish(newest(sandbox))
    results = await talk.call("get_results", batch=batch, view="rows")
    assert {row["key"]: row["status"] for row in results["rows"]} == {"a": "ok", "b": "ok", "c": "ok"}
    deleted = await talk.call("delete_batch", batch=batch, confirm=True)
    assert len(deleted["deleted"]["files"]) == 1
    assert "in/rows.jsonl" in objects(sandbox)


async def test_an_object_that_is_wrong_or_has_changed_is_not_sent(talk: Conversation, sandbox: Sandbox) -> None:
    source = put(sandbox, "rows.jsonl", [said("a", "one"), b'{"key":"b","request":{}}', said("a", "twice")])
    preview = await talk.call("preview_batch", source=source)
    assert [problem["line"] for problem in preview["problems"]] == [2, 3]
    assert "2 problems" in await talk.refusal("create_batch", source=source)

    put(sandbox, "rows.jsonl", [line("a").encode()])
    assert "no role" in await talk.refusal("create_batch", source=source)

    put(sandbox, "rows.jsonl", [said("a", "one")])
    pinned = (await talk.call("preview_batch", source=source), sandbox.state.object(f"{BUCKET}/rows.jsonl"))[1]
    assert pinned is not None
    put(sandbox, "rows.jsonl", [said("a", "another")])
    refused = await talk.refusal("create_batch", source=f"{source}#{pinned.generation}")
    assert "has changed since it was looked at" in refused
    assert sandbox.creates == 0


async def test_a_table_in_cloud_storage_is_ordered_with_a_prompt_and_its_results_are_saved_there(
    talk: Conversation, sandbox: Sandbox
) -> None:
    source = put(sandbox, "in/reviews.csv", [b"id,review", b"r1,fine", b"r2,bad"])
    order = {"source": source, "prompt": "Is this positive? {{review}}", "key_column": "id"}
    assert (await talk.call("preview_batch", **order))["request_count"] == 2
    batch = (await talk.call("create_batch", **order))["batch_id"]
    assert [entry["key"] for entry in sent(talk, batch)] == ["r1", "r2"]
    sandbox.finish(newest(sandbox))
    address = f"gs://{BUCKET}/out/reviews.csv"
    saved = (await talk.call("get_results", batch=batch, save_to=address))["saved"]
    assert (saved["path"], saved["rows"]) == (address, 2)
    assert objects(sandbox, "out/") == ["out/reviews.csv"]
    assert "lies outside" in await talk.refusal("get_results", batch=batch, save_to="gs://another/out.csv")
