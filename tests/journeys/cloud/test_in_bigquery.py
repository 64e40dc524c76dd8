"""The main job over a table in BigQuery: the same tools, Google's own clients, and nothing of the rows comes here."""

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.settings import Settings
from support.cloud.places import BUCKET, DATASET, objects, on_cloud, table, tables
from support.conversation import Conversation, converse, newest
from support.extent import long

pytestmark = pytest.mark.anyio

_PROMPT = "Is this positive? {{review}}"


@pytest.fixture
def cloud(settings: Settings, sandbox: Sandbox) -> Iterator[Settings]:
    with on_cloud(settings, sandbox) as settings:
        yield settings


@pytest.fixture
async def talk(cloud: Settings, era: str) -> AsyncIterator[Conversation]:
    async with converse(cloud, None, era) as conversation:
        yield conversation


def reviews(sandbox: Sandbox, *texts: str, name: str = "reviews") -> str:
    rows = ", ".join(f"('r{number}', '{text}', {number})" for number, text in enumerate(texts, 1))
    return table(sandbox, name, f"SELECT * FROM (VALUES {rows}) AS t(id, review, stars)")


async def test_a_table_is_previewed_ordered_followed_read_asked_and_resent_where_it_lies(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    source = reviews(
        sandbox, "fine", "[[sandbox:error:8]] [[sandbox:once]]", "bad", "[[sandbox:error:3]]", "[[sandbox:dropped]]"
    )
    order = {"source": source, "prompt": _PROMPT, "key_column": "id"}
    preview = await talk.call("preview_batch", **order)
    assert (preview["request_count"], preview["shard_count"], preview["problem_count"]) == (5, 1, 0)
    assert preview["sample"][0]["request"]["contents"][0]["parts"][0]["text"].startswith("Is this positive? ")
    assert "BigQuery: " in preview["estimate"]["basis"]
    assert any("CREATE TABLE" in warning for warning in preview["warnings"])
    assert tables(sandbox) == ["reviews"]

    created = await talk.call("create_batch", **order)
    batch = created["batch_id"]
    assert created["estimate"] == preview["estimate"]
    assert created["request_count"] == 5
    assert created["jobs"][0]["name"].startswith("projects/")
    again = await talk.call("create_batch", **order)
    assert (again["reused"], again["batch_id"]) == (True, batch)

    sandbox.finish(newest(sandbox))
    status = await talk.call("check_status", batch=batch)
    assert status["results_ready"]
    results = await talk.call("get_results", batch=batch, view="rows")
    assert [(row["key"], row["status"]) for row in results["rows"]] == [
        ("r1", "ok"),
        ("r2", "failed"),
        ("r3", "ok"),
        ("r4", "failed"),
        ("r5", "missing"),
    ]
    assert results["summary"]["missing"] == 1
    assert not results["integrity_ok"]
    assert results["usage"]["cost_usd"] > 0
    asked = await talk.call(
        "query_results", batch=batch, sql="SELECT stars, status, error_code FROM results WHERE key = 'r4'"
    )
    assert asked["rows"] == [[4, "failed", 3]]
    # Nothing of the rows is kept here.
    assert not list((talk.settings.home / "batches" / batch).glob("*.jsonl"))

    resent = await talk.call("retry_failed", batch=batch)
    assert resent["request_count"] == 2
    sandbox.finish(newest(sandbox))
    results = await talk.call("get_results", batch=batch, view="rows", limit=2)
    assert [(row["key"], row["status"]) for row in results["rows"]] == [("r1", "ok"), ("r2", "ok")]
    rest = await talk.call("get_results", batch=batch, view="rows", cursor=results["next_cursor"])
    assert [row["key"] for row in rest["rows"]] == ["r3", "r4", "r5"]
    saved = await talk.call("get_results", batch=batch, save_to=str(data / "out.jsonl"))
    assert saved["saved"]["rows"] == 5
    rows = [json.loads(line) for line in (data / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {row["key"]: row["stars"] for row in rows} == {"r1": 1, "r2": 2, "r3": 3, "r4": 4, "r5": 5}

    # The bucket of the project is a place like any other.
    address = f"gs://{BUCKET}/results/out.parquet"
    stored = await talk.call("get_results", batch=batch, save_to=address)
    assert (stored["saved"]["path"], stored["saved"]["rows"]) == (address, 5)
    assert objects(sandbox, "results/") == ["results/out.parquet"]
    assert "lies outside" in await talk.refusal("get_results", batch=batch, save_to="gs://bucket/out.csv")
    compared = await talk.call("compare_results", batch=batch, other="review", limit=1)
    assert (compared["compared"], compared["equal"], compared["share"]) == (3, 0, 0.0)
    assert [(row["key"], row["expected"]) for row in compared["rows"]] == [("r1", "fine")]
    behind = await talk.call("compare_results", batch=batch, other="review", cursor=compared["next_cursor"])
    assert len(behind["rows"]) == 2 and not behind["next_cursor"]

    deleted = await talk.call("delete_batch", batch=batch, confirm=True)
    assert deleted["deleted"]["local"]
    assert tables(sandbox) == ["reviews"]


@long
async def test_a_lost_reply_costs_nothing_twice_and_a_cancelled_job_keeps_its_rows(
    talk: Conversation, sandbox: Sandbox
) -> None:
    source = reviews(sandbox, "fine", "bad", "good", "dull")
    order = {"source": source, "prompt": _PROMPT, "key_column": "id"}
    await talk.call("preview_batch", **order)
    before = len(sandbox.cloud.bigquery.statements)
    sandbox.cut_next("queries.insert", when="after", skip=1)
    sandbox.cut_next("jobs.create", when="after")
    created = await talk.call("create_batch", **order)
    assert created["jobs"][0]["name"]
    assert sandbox.creates == 1
    ran = sandbox.cloud.bigquery.statements[before:]
    assert len(ran) == len(set(ran)) == 2

    sandbox.advance(newest(sandbox))
    cancelled = await talk.call("cancel_batch", batch=created["batch_id"])
    assert cancelled["state"] == "JOB_STATE_CANCELLING"
    sandbox.advance(newest(sandbox))
    results = await talk.call("get_results", batch=created["batch_id"], view="failures")
    assert (results["state"], results["summary"]["succeeded"]) == ("JOB_STATE_CANCELLED", 2)
    assert [row["status"] for row in results["rows"]] == ["missing", "missing"]
    (listed,) = (await talk.call("list_jobs"))["jobs"]
    assert listed["counts"] == {"total": 4, "succeeded": 2, "failed": 2, "pending": 0}
    assert listed["cost_usd"] == results["usage"]["cost_usd"]

    # A retry that is refused as a whole leaves nothing that the next one trips over, whatever becomes of its table.
    sandbox.fail_next("jobs.create", status=400)
    await talk.refusal("retry_failed", batch=created["batch_id"])
    (left,) = [name for name in tables(sandbox) if "_1_2_" in name]
    sandbox.cloud.tables.drop(DATASET, left)
    again = await talk.call("retry_failed", batch=created["batch_id"])
    assert again["request_count"] == 2
    sandbox.finish(newest(sandbox))
    results = await talk.call("get_results", batch=created["batch_id"])
    assert (results["summary"]["succeeded"], results["integrity_ok"]) == (4, True)


@long
async def test_answers_of_a_pilot_in_bigquery_tell_what_the_whole_table_is_likely_to_cost(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    source = table(sandbox, "many", "SELECT 'k' || n AS id, 'row ' || n AS review FROM range(200) AS t(n)")
    order = {"source": source, "prompt": _PROMPT, "key_column": "id"}
    before = await talk.call("preview_batch", **order)
    assert before["estimate"]["cost_usd_likely"] is None
    assert any("Order a pilot first: sample_rows=20" in warning for warning in before["warnings"])

    pilot = (await talk.call("create_batch", **order, sample_rows=20))["batch_id"]
    sandbox.finish(newest(sandbox))
    spent = (await talk.call("get_results", batch=pilot))["usage"]["cost_usd"]
    estimate = (await talk.call("preview_batch", **order))["estimate"]
    assert estimate["cost_usd_likely"] == pytest.approx(10 * spent, rel=0.3)
    assert estimate["cost_usd_low"] < estimate["cost_usd_likely"] < estimate["cost_usd_high"]
    assert f"Likely: by 20 answers of {pilot}; with 95 %" in estimate["basis"]
    created = await talk.call("create_batch", **order)
    assert created["estimate"] == estimate
    sandbox.finish(newest(sandbox))
    usage = (await talk.call("get_results", batch=created["batch_id"]))["usage"]
    assert usage["cost_usd"] == pytest.approx(estimate["cost_usd_likely"], rel=0.3)

    # They tell it of the same prompt over a file, too.
    rows = "id,review\n" + "".join(f"k{number},row {number}\n" for number in range(150))
    (data / "rows.csv").write_text(rows, encoding="utf-8")
    of_file = (await talk.call("preview_batch", **{**order, "source": str(data / "rows.csv")}))["estimate"]
    assert "answers of" in of_file["basis"] and of_file["cost_usd_likely"] > 0


async def test_what_cannot_be_ordered_from_bigquery_is_refused_with_what_to_do(
    talk: Conversation, sandbox: Sandbox
) -> None:
    source = reviews(sandbox, "fine", "bad")
    table(sandbox, "twice", "SELECT * FROM (VALUES ('a', 'x'), ('a', 'y'), (NULL, 'z')) AS t(id, review)")
    for order, words in (
        ({"source": source}, "needs a prompt"),
        ({"source": source, "prompt": "{{missing}}"}, "missing"),
        ({"source": f"{source}s", "prompt": _PROMPT}, "There is no bq://"),
        ({"source": "bq://other-project.data.t", "prompt": _PROMPT}, "GEMINI_BATCH_ROOTS"),
        ({"source": "bq://other-project.data.t#1", "prompt": _PROMPT}, "GEMINI_BATCH_ROOTS"),
        ({"source": f"{source}#1", "prompt": _PROMPT}, "has changed since it was looked at"),
        ({"source": "bq://nonsense", "prompt": _PROMPT}, "bq://project.dataset.table"),
        ({"source": source, "prompt": _PROMPT, "skip_invalid": True}, "skip_invalid"),
        ({"source": source, "prompt": _PROMPT, "delivery": "now"}, "delivery='file'"),
        ({"source": source.replace("reviews", "twice"), "prompt": _PROMPT, "key_column": "id"}, "key"),
    ):
        assert words in await talk.refusal("preview_batch", **order)
    assert sandbox.creates == 0


@long
async def test_how_many_calls_an_order_takes_and_what_they_carry_do_not_grow_with_its_rows(
    talk: Conversation, sandbox: Sandbox
) -> None:
    async def run(rows: int) -> tuple[list[str], int]:
        before = len(sandbox.requests)
        select = f"SELECT 'k' || n AS id, 'row ' || (n % 7) AS review FROM range({rows}) AS t(n)"
        source = table(sandbox, f"of_{rows}", select)
        order = {"source": source, "prompt": _PROMPT, "key_column": "id"}
        await talk.call("preview_batch", **order)
        batch = (await talk.call("create_batch", **order))["batch_id"]
        sandbox.finish(newest(sandbox))
        await talk.call("check_status", batch=batch)
        results = await talk.call("get_results", batch=batch, view="rows", limit=5)
        assert results["summary"]["succeeded"] == rows
        await talk.call("query_results", batch=batch, sql="SELECT status, COUNT(*) AS n FROM results GROUP BY status")
        # How often it is looked whether something has ended goes with time.
        asked = [request for request in sandbox.requests[before:] if request.route not in ("queries.get", "jobs.get")]
        return sorted(request.route for request in asked), sum(
            request.request_bytes + request.response_bytes for request in asked
        )

    # Of so many answers and more, 2,000 tell what others are likely to take.
    few, few_bytes = await run(2_100)
    many, many_bytes = await run(4_200)
    assert few == many
    assert abs(many_bytes - few_bytes) < 4_000
    assert max(many_bytes, few_bytes) < 1_000_000
