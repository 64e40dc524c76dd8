"""What bad input gets: a sentence that says what happened and what to do, nothing half written, nothing given away."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.sandbox.config import OnCommand, SandboxConfig
from gemini_batch_mcp.settings import Secret, Settings
from support.conversation import Conversation, converse, line, request_file, spoken, write_lines
from support.services import MovedClock

pytestmark = pytest.mark.anyio

OPENAI = '{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{"model":"x","messages":[]}}'

#: Content of a source file → words that the refusal must hold.
REFUSED_FILES: dict[str, tuple[bytes, tuple[str, ...]]] = {
    "empty file": (b"", ("empty",)),
    "only blank lines": (b"\n\n  \n", ("no requests",)),
    "invalid UTF-8": (line("a").encode() + b'\n{"key":"b\xff"}\n', ("is not UTF-8", "isn't certain", "encoding=")),
    "truncated JSON": (line("a").encode() + b'\n{"key":"b","request":{\n', ("line 2", "JSON")),
    "a list": (b'["a"]\n', ("line 1", "object")),
    "a string": (b'"a"\n', ("line 1", "object")),
    "OpenAI lines": (OPENAI.encode() + b"\n", ("`body.messages`", "line 1")),
    "duplicate keys": ((line("same") + "\n" + line("x") + "\n" + line("same") + "\n").encode(), ("same", "line 3")),
    "a missing key": (b'{"request":{"contents":[{"parts":[{"text":"x"}]}]}}\n', ("line 1", "key")),
    "a key that is no string": (b'{"key":7,"request":{"contents":[{"parts":[{"text":"x"}]}]}}\n', ("line 1", "key")),
    "a bare request": (b'{"contents":[{"parts":[{"text":"x"}]}]}\n', ("line 1", "request")),
    "an unknown field": (
        b'{"key":"a","request":{"contents":[{"parts":[{"text":"x"}]}],"generationConfg":{}}}\n',
        ("line 1", "generationConfg", "generationConfig"),
    ),
    "the SDK's config": (
        b'{"key":"b","request":{"contents":[{"parts":[{"text":"hi"}]}],"config":{"temperature":0}}}\n',
        ("config", "generationConfig"),
    ),
    "a line of 20 MB": (line("a", "x" * (20 * 1024**2)).encode() + b"\n", ("line 1", "20")),
}


@pytest.mark.parametrize("name", REFUSED_FILES)
async def test_a_wrong_request_file_is_refused_and_never_finalized(
    talk: Conversation, sandbox: Sandbox, data: Path, name: str
) -> None:
    content, words = REFUSED_FILES[name]
    source = data / "wrong.jsonl"
    source.write_bytes(content)

    sentence = await talk.refusal("create_batch", source=str(source))

    for word in words:
        assert word in sentence, sentence
    assert source.read_bytes() == content
    assert sandbox.creates == 0
    assert not any(request.route == "files.finalize" for request in sandbox.requests)
    assert (await talk.call("list_jobs"))["jobs"] == []
    batches = talk.settings.home / "batches"
    assert not batches.exists() or not list(batches.iterdir())


#: Content of a source file → words of the warning that comes with the order.
TOLERATED_FILES: dict[str, tuple[bytes, str]] = {
    "BOM": (b"\xef\xbb\xbf" + (line("a") + "\n").encode(), "byte-order mark"),
    "CRLF": ((line("a") + "\r\n" + line("b") + "\r\n").encode(), "Carriage returns"),
    "blank lines": ((line("a") + "\n\n" + line("b") + "\n\n").encode(), "blank line"),
    "text as systemInstruction": (
        b'{"key":"d","request":{"contents":[{"parts":[{"text":"hi"}]}],"systemInstruction":"plain text"}}\n',
        "systemInstruction",
    ),
    "text as contents": (b'{"key":"e","request":{"contents":"hi"}}\n', "contents"),
    "misplaced thinking": (
        b'{"key":"c","request":{"contents":[{"parts":[{"text":"hi"}]}],"thinking_config":{"thinking_level":"LOW"}}}\n',
        "hinking",
    ),
}


@pytest.mark.parametrize("name", TOLERATED_FILES)
async def test_what_can_be_mended_is_mended_in_a_copy_with_a_warning(
    talk: Conversation, sandbox: Sandbox, data: Path, name: str
) -> None:
    content, warning = TOLERATED_FILES[name]
    source = data / "mendable.jsonl"
    source.write_bytes(content)

    created = await talk.call("create_batch", source=str(source))

    assert any(warning in said for said in created["warnings"]), created["warnings"]
    assert source.read_bytes() == content
    assert sandbox.creates == 1


async def test_a_missing_final_newline_and_line_separators_inside_text_are_fine(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    source = data / "fine.jsonl"
    raw = json.dumps(
        {"key": "u", "request": {"contents": [{"parts": [{"text": "a\u2028b\u2029c\u0085d"}]}]}}, ensure_ascii=False
    )
    source.write_text(line("a") + "\n" + raw, encoding="utf-8")
    created = await talk.call("create_batch", source=str(source))

    assert created["request_count"] == 2
    assert created["warnings"] == []


async def test_the_first_twenty_problems_are_shown_and_all_are_counted(talk: Conversation, data: Path) -> None:
    source = write_lines(data / "many.jsonl", [json.dumps({"key": f"k{n}", "request": {}}) for n in range(50)])
    sentence = await talk.refusal("create_batch", source=source)

    assert "50 problems" in sentence
    assert "line 20" in sentence
    assert "line 21" not in sentence


def _symlink_out(data: Path) -> str:
    outside = data.parent / "outside.jsonl"
    request_file(data.parent, name="outside.jsonl")
    (data / "link.jsonl").symlink_to(outside)
    return "link.jsonl"


def _hidden(data: Path) -> str:
    (data / ".secret").mkdir()
    return request_file(data / ".secret")


def _fifo(data: Path) -> str:
    os.mkfifo(data / "pipe.jsonl")
    return "pipe.jsonl"


BAD_PATHS: dict[str, tuple[Callable[[Path], str], str]] = {
    "missing file": (lambda _: "nowhere.jsonl", "There is no file 'nowhere.jsonl'"),
    "directory": (lambda data: str(data), "holds no files"),
    "outside the roots": (lambda data: request_file(data.parent), "outside the directories"),
    "climbing out": (lambda _: "../../etc/passwd", "outside the directories"),
    "symlink out": (_symlink_out, "outside the directories"),
    "home": (lambda _: "~/reviews.jsonl", "starts with ~"),
    "NUL": (lambda _: "a\0b.jsonl", "control character"),
    "device": (lambda _: "/dev/zero", "outside the directories"),
    "pipe": (_fifo, "not a file"),
    "hidden": (_hidden, "hidden"),
    "network path": (lambda _: r"\\server\share\x.jsonl", "network path"),
    "table": (lambda data: write_lines(data / "table.csv", ["a,b"]), 'prompt="'),
    "not JSONL": (
        lambda data: write_lines(data / "notes.md", ["a,b"]),
        "does not have the name of a table or of requests",
    ),
    "too long": (lambda _: "x" * 5000 + ".jsonl", "cannot be"),
}


@pytest.mark.parametrize("name", BAD_PATHS)
async def test_a_bad_path_is_refused_with_its_reason(
    talk: Conversation, sandbox: Sandbox, data: Path, name: str
) -> None:
    make, words = BAD_PATHS[name]
    assert words in await talk.refusal("create_batch", source=make(data))
    assert not sandbox.requests or all(request.route == "models.list" for request in sandbox.requests)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("../out.jsonl", "outside the directories"),
        ("nowhere/out.jsonl", "does not exist"),
        (".hidden.jsonl", "hidden"),
        ("~/out.jsonl", "starts with ~"),
    ],
)
async def test_results_are_written_only_where_they_may_be(
    talk: Conversation, sandbox: Sandbox, data: Path, path: str, words: str
) -> None:
    created = await talk.call("create_batch", source=request_file(data))
    sandbox.finish(created["jobs"][0]["name"])
    before = sorted(data.parent.rglob("*.jsonl"))

    assert words in await talk.refusal("get_results", batch=created["batch_id"], save_to=path)
    assert [file for file in sorted(data.parent.rglob("*.jsonl")) if file not in before] == []


async def test_without_a_key_the_server_lists_its_tools_and_says_what_to_set(
    settings: Settings, data: Path, era: str
) -> None:
    async with converse(replace(settings, api_key=None), None, era) as talk:
        assert len((await talk.client.list_tools()).tools) == 10
        for tool, arguments in (("create_batch", {"source": request_file(data)}), ("list_jobs", {})):
            sentence = await talk.refusal(tool, **arguments)
            assert "GEMINI_API_KEY" in sentence
            assert "--sandbox" in sentence


async def test_neither_or_both_sources_are_refused(talk: Conversation, data: Path) -> None:
    assert "Neither" in await talk.refusal("create_batch")
    both = await talk.refusal("create_batch", source=request_file(data), requests=[{"prompt": "x"}])
    assert "Both" in both


async def test_an_unknown_model_is_named_with_what_fits(talk: Conversation, sandbox: Sandbox, data: Path) -> None:
    sentence = await talk.refusal("create_batch", source=request_file(data), model="gemini-3-flsh-preview")

    assert "gemini-3-flsh-preview" in sentence
    assert "gemini-3-flash-preview" in sentence
    assert sandbox.creates == 0


async def test_a_model_of_the_wrong_kind_is_refused(talk: Conversation, data: Path) -> None:
    sentence = await talk.refusal("create_batch", source=request_file(data), model="gemini-embedding-2")
    assert "does not support" in sentence


async def test_an_unknown_batch_and_an_ambiguous_name_are_told_apart(talk: Conversation, data: Path) -> None:
    for number in (1, 2):
        await talk.call("create_batch", source=request_file(data, number), display_name="twin")

    assert "There is no batch or job 'nobody'" in await talk.refusal("check_status", batch="nobody")
    sentence = await talk.refusal("check_status", batch="twin")
    assert "2 batches are named 'twin'" in sentence


@pytest.mark.parametrize(
    ("tool", "arguments", "words"),
    [
        ("get_results", {"batch": "x", "limit": 500}, "limit"),
        ("get_results", {"batch": "x", "view": "everything"}, "view"),
        ("check_status", {"batch": "x", "wait_seconds": 600}, "wait_seconds"),
        ("check_status", {}, "batch"),
        ("list_jobs", {"cursor": "garbage"}, "cursor"),
    ],
)
async def test_arguments_out_of_bounds_are_named(
    talk: Conversation, tool: str, arguments: dict[str, object], words: str
) -> None:
    assert words in await talk.refusal(tool, **arguments)


async def test_a_foreign_cursor_is_refused(talk: Conversation, sandbox: Sandbox, data: Path) -> None:
    created = await talk.call("create_batch", source=request_file(data))
    sandbox.finish(created["jobs"][0]["name"])
    assert "cursor" in await talk.refusal("get_results", batch=created["batch_id"], view="rows", cursor="garbage")


async def test_a_file_uploaded_before_asks_for_confirmation(talk: Conversation, sandbox: Sandbox, data: Path) -> None:
    first = await talk.call("create_batch", source=request_file(data))
    name = (await _uploaded_files(sandbox))[0]

    assert "confirm=true" in await talk.refusal("create_batch", source=name)
    second = await talk.call("create_batch", source=name, confirm=True)
    assert second["batch_id"] != first["batch_id"]
    assert sandbox.creates == 2
    assert "404" in await talk.refusal("create_batch", source="files/doesnotexist", confirm=True)


async def _uploaded_files(sandbox: Sandbox) -> list[str]:
    import httpx2

    async with httpx2.AsyncClient(transport=sandbox.transport(), base_url="http://sandbox") as http:
        reply = await http.get("/v1beta/files", headers={"x-goog-api-key": "k"})
        return [entry["name"] for entry in reply.json()["files"] if not entry["name"].startswith("files/batch-")]


@pytest.mark.parametrize(
    ("key", "words"), [("invalid-key", "key"), ("unauthorized-key", "key"), ("forbidden-key", "key")]
)
async def test_a_refused_key_is_named_by_its_setting(
    settings: Settings, sandbox: Sandbox, data: Path, era: str, key: str, words: str
) -> None:
    wrong = replace(settings, api_key=Secret(key, "GOOGLE_API_KEY"))
    async with converse(wrong, sandbox, era) as talk:
        sentence = await talk.refusal("create_batch", source=request_file(data))
        assert words in sentence
        assert "GOOGLE_API_KEY" in sentence
        assert key not in sentence
    assert sandbox.creates == 0


async def test_a_quota_refusal_becomes_a_wait_with_a_time_and_the_upload_is_kept(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    source = request_file(data)
    sandbox.fail_next("batches.create", status=429, retry_after=34)
    created = await talk.call("create_batch", source=source)
    assert created["state"] == "JOB_STATE_QUEUED"
    assert "next try at" in created["advice"]
    assert sandbox.creates == 0

    again = await talk.call("create_batch", source=source)

    assert again["batch_id"] == created["batch_id"]
    assert again["state"] == "JOB_STATE_QUEUED"
    assert sandbox.creates == 0
    assert sum(request.route == "files.finalize" for request in sandbox.requests) == 1


async def test_a_quota_refusal_without_a_time_is_tried_again_by_whoever_looks(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    sandbox.fail_next("batches.create", status=429)
    created = await talk.call("create_batch", source=request_file(data))
    assert created["state"] == "JOB_STATE_QUEUED"

    await talk.comes_to(created["batch_id"], "JOB_STATE_PENDING")

    assert sandbox.creates == 1


async def test_a_line_that_gemini_refuses_is_passed_on_with_its_number(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    body = {"error": {"code": 400, "message": "Error on line 2: invalid JSON, near column 58", "status": "X"}}
    sandbox.fail_next("batches.create", status=400, body=body)
    sentence = await talk.refusal("create_batch", source=request_file(data))

    assert "line 2" in sentence
    assert sandbox.creates == 0


async def test_server_errors_while_reading_are_retried(talk: Conversation, sandbox: Sandbox, data: Path) -> None:
    created = await talk.call("create_batch", source=request_file(data))
    sandbox.fail_next("batches.get", status=500, times=1)

    assert (await talk.call("check_status", batch=created["batch_id"]))["state"] == "JOB_STATE_PENDING"


async def test_a_failed_job_shows_its_error_and_has_no_results(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    created = await talk.call("create_batch", source=request_file(data))
    job = created["jobs"][0]["name"]
    sandbox.finish(job, state="FAILED", error={"code": 3, "message": "The input could not be processed."})
    status = await talk.call("check_status", batch=created["batch_id"])

    assert status["state"] == "JOB_STATE_FAILED"
    assert status["jobs"][0]["error"] == "code 3: The input could not be processed."
    assert "The input could not be processed." in status["advice"]
    assert "JOB_STATE_FAILED" in await talk.refusal("get_results", batch=created["batch_id"])


async def test_an_expired_job_says_that_nothing_is_kept(talk: Conversation, sandbox: Sandbox, data: Path) -> None:
    created = await talk.call("create_batch", source=request_file(data))
    sandbox.finish(created["jobs"][0]["name"], state="EXPIRED", error={"code": 4, "message": "Too late."})

    assert "48 hours" in (await talk.call("check_status", batch=created["batch_id"]))["advice"]
    assert "JOB_STATE_EXPIRED" in await talk.refusal("get_results", batch=created["batch_id"])
    again = await talk.call("create_batch", source=request_file(data))
    assert again["reused"] is False


async def test_a_state_that_nobody_knows_is_shown_and_not_taken_as_finished(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    created = await talk.call("create_batch", source=request_file(data))
    sandbox.set_state(created["jobs"][0]["name"], "BATCH_STATE_REBALANCING")
    status = await talk.call("check_status", batch=created["batch_id"])

    assert status["state"] == "JOB_STATE_UNSPECIFIED"
    assert status["done"] is False
    assert "BATCH_STATE_REBALANCING" in status["advice"]


async def test_a_result_file_that_is_gone_is_said_to_be_gone(
    talk: Conversation, sandbox: Sandbox, service_clock: MovedClock, data: Path
) -> None:
    service_clock.move(-7200)
    created = await talk.call("create_batch", source=request_file(data))
    sandbox.finish(created["jobs"][0]["name"])
    sandbox.fail_next("files.download", status=404, times=10)

    assert "is gone from Gemini" in await talk.refusal("get_results", batch=created["batch_id"])
    assert not list((talk.settings.home / "batches").rglob("answers-*"))


async def test_running_batches_show_their_row_counts(tmp_path: Path, settings: Settings, data: Path, era: str) -> None:
    with Sandbox(tmp_path / "steps", SandboxConfig(pace=OnCommand())) as service:
        async with converse(settings, service, era) as talk:
            created = await talk.call("create_batch", source=request_file(data, 10))
            service.advance(created["jobs"][0]["name"])
            result = await talk.raw("check_status", batch=created["batch_id"])
            assert result.structured_content is not None
            counts = result.structured_content["counts"]
            assert counts["total"] == 10
            assert counts["pending"] == 10 - counts["succeeded"] - counts["failed"]
            assert "of 10 rows done" in spoken(result)
            assert "no results" in await talk.refusal("get_results", batch=created["batch_id"])
