"""Whatever the user has becomes a checked batch, in conversation: tables, folders, pilots, texts, OpenAI's form."""

import csv
import json
import re
from pathlib import Path

import duckdb
import pytest

from gemini_batch_mcp.sandbox.app import Sandbox
from support.conversation import Conversation, newest, write_lines

pytestmark = pytest.mark.anyio

PDF = (
    b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n"
    b"3 0 obj<</Type/Page/Parent 2 0 R>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n"
)
SCHEMA = {
    "type": "object",
    "properties": {"mood": {"type": "string", "enum": ["good", "bad"]}, "stars": {"type": "integer"}},
    "required": ["mood", "stars"],
}


def _requests(talk: Conversation, batch: str) -> list[dict[str, object]]:
    path = talk.settings.home / "batches" / batch / "requests.jsonl"
    return [json.loads(row) for row in path.read_text(encoding="utf-8").splitlines()]


async def test_a_csv_with_a_schema_is_previewed_ordered_and_read_back_with_its_own_columns(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    rows = [{"id": f"r{n}", "product": f"p{n % 3}", "text": f'"quoted", line\n{n}; ünïcode'} for n in range(12)]
    with (data / "reviews.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["id", "product", "text"])
        writer.writeheader()
        writer.writerows(rows)
    order = {
        "source": "reviews.csv",
        "prompt": "Mood of this review of {{product}}? {{text}}",
        "system_instruction": "You read reviews.",
        "response_schema": SCHEMA,
        "generation_config": {"max_output_tokens": 100, "temperature": 0},
        "key_column": "id",
    }
    preview = await talk.call("preview_batch", **order)
    assert preview["ok"]
    assert (preview["request_count"], preview["shard_count"]) == (12, 1)
    assert preview["estimate"]["cost_usd_low"] < preview["estimate"]["cost_usd_high"]
    assert preview["estimate"]["priced_on"]
    assert sandbox.creates == 0
    created = await talk.call("create_batch", **order)
    sent = _requests(talk, created["batch_id"])
    assert sent[:2] == preview["sample"]
    assert sent[0]["request"] == {
        "contents": [{"role": "user", "parts": [{"text": f"Mood of this review of p0? {rows[0]['text']}"}]}],
        "systemInstruction": {"parts": [{"text": "You read reviews."}]},
        "generationConfig": {
            "maxOutputTokens": 100,
            "temperature": 0,
            "responseMimeType": "application/json",
            "responseSchema": {
                "type": "OBJECT",
                "properties": {
                    "mood": {"type": "STRING", "format": "enum", "enum": ["good", "bad"]},
                    "stars": {"type": "INTEGER"},
                },
                "required": ["mood", "stars"],
                "propertyOrdering": ["mood", "stars"],
            },
        },
    }
    sandbox.finish(newest(sandbox))
    results = await talk.call("get_results", batch=created["batch_id"], save_to="answers.csv", format="csv")
    assert results["summary"]["succeeded"] == 12
    with (data / "answers.csv").open(encoding="utf-8-sig", newline="") as file:
        answers = list(csv.DictReader(file))
    assert [answer["product"] for answer in answers] == [row["product"] for row in rows]
    assert {answer["mood"] for answer in answers} <= {"good", "bad"}
    counted = await talk.call(
        "query_results", batch=created["batch_id"], sql="SELECT product, count(*) FROM results GROUP BY 1 ORDER BY 1"
    )
    assert counted["rows"] == [["p0", 4], ["p1", 4], ["p2", 4]]


async def test_a_folder_of_pdfs_is_attached_file_by_file(talk: Conversation, sandbox: Sandbox, data: Path) -> None:
    (data / "scans").mkdir()
    for number in range(3):
        (data / "scans" / f"scan{number}.pdf").write_bytes(PDF + b"%" * (number % 2))
    order = {"source": "scans/*.pdf", "attach": "path", "prompt": "What does {{name}} say?"}
    preview = await talk.call("preview_batch", **order)
    assert preview["ok"], preview
    created = await talk.call("create_batch", **order)
    assert created["request_count"] == 3
    parts = [row["request"]["contents"][0]["parts"] for row in _requests(talk, created["batch_id"])]  # type: ignore[index]
    assert all(any("inlineData" in part or "fileData" in part for part in found) for found in parts)
    assert {next(part["text"] for part in found if "text" in part) for found in parts} == {
        f"What does scan{number}.pdf say?" for number in range(3)
    }
    sandbox.finish(newest(sandbox))
    assert (await talk.call("get_results", batch=created["batch_id"]))["summary"]["succeeded"] == 3


async def test_a_missing_attachment_is_told_with_its_row_before_anything_is_sent(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    (data / "there.pdf").write_bytes(PDF)
    (data / "bills.csv").write_text("file\nthere.pdf\nnowhere.pdf\n", encoding="utf-8")
    refusal = await talk.refusal("create_batch", source="bills.csv", attach="file", prompt="Sum of {{file}}?")
    assert "nowhere.pdf" in refusal
    assert "ow 2" in refusal
    assert sandbox.creates == 0
    assert not any(request.route.startswith("files.") for request in sandbox.requests)


async def test_a_parquet_pilot_of_20_rows_and_then_all(talk: Conversation, sandbox: Sandbox, data: Path) -> None:
    path = data / "reviews.parquet"
    duckdb.sql(f"COPY (SELECT i AS id, 'review ' || i AS text FROM range(200) t(i)) TO '{path}' (FORMAT parquet)")
    order = {"source": "reviews.parquet", "prompt": "Classify {{text}}", "key_column": "id"}
    pilot = await talk.call("create_batch", **order, limit_rows=20)
    assert pilot["request_count"] == 20
    whole = await talk.call("create_batch", **order)
    assert whole["request_count"] == 200
    assert whole["batch_id"] != pilot["batch_id"]
    sandbox.finish(newest(sandbox))
    results = await talk.call("get_results", batch=whole["batch_id"], view="rows", limit=3)
    assert [row["key"] for row in results["rows"]] == ["0", "1", "2"]
    assert results["summary"]["succeeded"] == 200


async def test_texts_are_embedded_each_under_its_key(talk: Conversation, sandbox: Sandbox, data: Path) -> None:
    (data / "texts.txt").write_text("first\nsecond\nthird\n", encoding="utf-8")
    created = await talk.call(
        "create_batch",
        source="texts.txt",
        prompt="{{text}}",
        task="embed",
        model="gemini-embedding-001",
        generation_config={"taskType": "CLUSTERING", "outputDimensionality": 128},
    )
    sent = [row["request"] for row in _requests(talk, created["batch_id"])]
    assert sent[1] == {
        "content": {"parts": [{"text": "second"}]},
        "taskType": "CLUSTERING",
        "outputDimensionality": 128,
    }
    sandbox.finish(newest(sandbox))
    results = await talk.call("get_results", batch=created["batch_id"], view="rows")
    assert results["summary"]["succeeded"] == 3
    assert len(json.dumps(results)) < 4000


async def test_openai_lines_are_converted_and_said_to_be(talk: Conversation, sandbox: Sandbox, data: Path) -> None:
    bodies = [
        {
            "model": "gpt-x",
            "messages": [{"role": "system", "content": "Be short."}, {"role": "user", "content": f"Hi {n}"}],
            "max_tokens": 50,
        }
        for n in range(3)
    ]
    lines = [
        json.dumps({"custom_id": f"c{n}", "method": "POST", "url": "/v1/chat/completions", "body": body})
        for n, body in enumerate(bodies)
    ]
    source = write_lines(data / "openai.jsonl", lines)
    created = await talk.call("create_batch", source=source)
    assert any("OpenAI" in warning for warning in created["warnings"])
    sent = _requests(talk, created["batch_id"])
    assert [row["key"] for row in sent] == ["c0", "c1", "c2"]
    assert sent[0]["request"]["generationConfig"] == {"maxOutputTokens": 50}  # type: ignore[index]
    sandbox.finish(newest(sandbox))
    assert (await talk.call("get_results", batch=created["batch_id"]))["summary"]["succeeded"] == 3


async def test_an_unknown_column_is_named_with_those_there_are(talk: Conversation, data: Path) -> None:
    (data / "t.csv").write_text("id,text\n1,a\n", encoding="utf-8")
    refusal = await talk.refusal("create_batch", source="t.csv", prompt="{{txt}}")
    assert "txt" in refusal
    assert "id, text" in refusal
    assert "Did you mean text?" in refusal


async def test_problems_are_previewed_by_line_and_nothing_is_sent(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    source = write_lines(data / "wrong.jsonl", ['{"key":"a","request":{"contents":[{"parts":[{"txt":"x"}]}]}}'])
    preview = await talk.call("preview_batch", source=source)
    assert preview["ok"] is False
    assert preview["problem_count"] >= 1
    assert preview["problems"][0]["line"] == 1
    assert preview["problems"][0]["key"] == "a"
    assert preview["problems"][0]["fix"]
    assert sandbox.creates == 0


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("gemini-2.0-flash", "shut down"),
        ("gemini-9-nothing", "Gemini has no model"),
        ("gemini-embedding-001", "does not support"),
    ],
)
async def test_a_model_that_cannot_be_used_is_named_with_what_to_use_instead(
    talk: Conversation, sandbox: Sandbox, data: Path, model: str, words: str
) -> None:
    source = write_lines(data / "a.jsonl", ['{"key":"a","request":{"contents":[{"parts":[{"text":"x"}]}]}}'])
    for tool in ("preview_batch", "create_batch"):
        refusal = await talk.refusal(tool, source=source, model=model)
        assert words in refusal
        assert "gemini-" in refusal.replace(model, "")
    assert sandbox.creates == 0


async def test_a_model_that_is_rerouted_is_priced_and_said_to_be(talk: Conversation, data: Path) -> None:
    source = write_lines(data / "a.jsonl", ['{"key":"a","request":{"contents":[{"parts":[{"text":"x"}]}]}}'])
    preview = await talk.call("preview_batch", source=source, model="gemini-2.5-flash")
    assert any("gemini-3.5-flash-lite" in warning for warning in preview["warnings"])


async def test_a_thinking_level_that_the_model_does_not_have_is_refused_and_one_of_its_own_is_taken(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    def order(model: str, level: str) -> dict[str, object]:
        thinking = {"thinking_config": {"thinking_level": level}}
        return {"requests": [{"prompt": "Hello"}], "model": model, "generation_config": thinking}

    for tool in ("preview_batch", "create_batch"):
        refusal = await talk.refusal(tool, **order("gemini-4-hydrogen", "MINIMAL"))
        assert refusal == (
            "gemini-4-hydrogen has no thinking level 'MINIMAL'. Write one of LOW, MEDIUM, HIGH, XHIGH in thinkingLevel."
        )
    assert sandbox.creates == 0
    assert (await talk.call("preview_batch", **order("gemini-4-hydrogen", "XHIGH")))["ok"]
    assert (await talk.call("create_batch", **order("gemini-4-neon", "XHIGH")))["state"] == "JOB_STATE_PENDING"


async def test_a_prompt_that_reads_files_which_are_no_text_is_told_to_attach_them(
    talk: Conversation, data: Path
) -> None:
    (data / "scans").mkdir()
    for number in range(2):
        (data / "scans" / f"{number}.pdf").write_bytes(b"%PDF-1.7\n1 0 obj <</Type /Page>> endobj\n%%EOF")
    said = await talk.refusal("preview_batch", source="scans", prompt="What is this? {{text}}")
    assert "No file of scans is text" in said and 'Give attach="path"' in said
    assert (await talk.call("preview_batch", source="scans", prompt="What is this?", attach="path"))["ok"]


async def test_rows_with_nothing_to_ask_about_are_counted_and_can_be_left_out_as_is_said(
    talk: Conversation, data: Path
) -> None:
    (data / "t.csv").write_text(
        "id,text,order\n1,good,a\n2,,b\n3, ,c\n4,\u200b\u00a0,d\n5,,e\n6,x,\n", encoding="utf-8"
    )
    (data / "plain.csv").write_text("id,text\n1,good\n2,\n", encoding="utf-8")
    for order, said, refused in (
        ({"source": "plain.csv", "prompt": "Label: {{text}}"}, "1 row has nothing in text (row 2)", False),
        ({"source": "plain.csv", "prompt": "{{text}}"}, "1 row has nothing in text (row 2)", True),
        ({"source": "t.csv", "prompt": "Label: {{text}}"}, "4 rows have nothing in text (rows 2, 3, 4 first)", False),
        ({"source": "t.csv", "prompt": "Sort: {{order}}"}, "1 row has nothing in order (row 6)", False),
        (
            {"requests": [{"a": "x", "b": 1}, {"a": None, "b": None}], "prompt": "{{a}}: {{b}}?"},
            "1 row has nothing in a, b (row 2)",
            False,
        ),
    ):
        seen = await talk.call("preview_batch", **order)
        (warning,) = [warning for warning in seen["warnings"] if "nothing in" in warning]
        assert warning.startswith(said), warning
        assert ("which Gemini refuses" in warning) == refused and "no text" not in "".join(seen["warnings"])
        where = re.search(r"with where=([\"`])(.+)\1\.$", warning)
        assert where is not None, warning
        without = await talk.call("preview_batch", **order, where=where[2])
        assert not [warning for warning in without["warnings"] if "nothing in" in warning]
        assert without["request_count"] == seen["request_count"] - int(said.split()[0])
    kept = await talk.call("preview_batch", source="t.csv", prompt="Label: {{text}}", where="id > 3")
    assert any("2 rows have nothing in text and are sent" in warning for warning in kept["warnings"])
    # Rows that are not sent are none of them, and whether one that cannot be read meets a condition nobody knows.
    (data / "broken.csv").write_text("id,text\n1,good\n2,\n3,too,many\n4,\n,\n", encoding="utf-8")
    broken = {"source": "broken.csv", "prompt": "Label: {{text}}", "key_column": "id", "skip_invalid": True}
    seen = await talk.call("preview_batch", **broken)
    assert (seen["send_count"], seen["skipped_count"]) == (3, 2)
    assert "2 rows have nothing in text (rows 2, 4) and are sent all the same." in seen["warnings"]
    for chosen in ({"where": "text <> ''"}, {"sample_rows": 2}):
        (wrong,) = (await talk.call("preview_batch", **broken, **chosen))["problems"]
        assert wrong["line"] == 4
        assert wrong["fix"].endswith(f"Without `{next(iter(chosen))}`, skip_invalid leaves such rows out.")
    # What a row asks about may be in its file, or in another column.
    both = await talk.call("preview_batch", source="t.csv", prompt="Label: {{text}} {{id}}")
    assert not [warning for warning in both["warnings"] if "nothing in" in warning]
