"""The answers of a job as Vertex AI leaves them: rows with their requests, in objects or in a table, in no order."""

import json
from collections.abc import Generator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any, Final

import msgspec

from gemini_batch_mcp.sandbox.cloud._objects import Objects
from gemini_batch_mcp.sandbox.cloud._table_rows import answer_at_once, moment_of, write_output
from gemini_batch_mcp.sandbox.cloud._tables import Tables
from gemini_batch_mcp.sandbox.config import SandboxConfig
from gemini_batch_mcp.sandbox.lifecycle.jobs import Delivered
from gemini_batch_mcp.sandbox.lifecycle.lines import RequestProblem, check_request
from gemini_batch_mcp.sandbox.lifecycle.met import MetOnce
from gemini_batch_mcp.sandbox.replies.rows import RowWriter
from gemini_batch_mcp.sandbox.state import JobRecord
from gemini_batch_mcp.sandbox.wire import status_code_of, status_name, timestamp

_ROLES: Final = ("user", "model")
#: What the text of a failed row begins with, by the HTTP status of its error.
_WORDS: Final = {400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 429: "Too Many Requests"}


def deliver(
    job: JobRecord, rows: Path, count: int, objects: Objects, tables: Tables, config: SandboxConfig
) -> Delivered:
    """Write the answers to the first `count` rows to where they go, and what Vertex AI leaves beside them."""
    dest = json.loads(job.cloud)["dest"]
    if dest.startswith("bq://") and config.answers_tables_at_once:
        return Delivered(answer_at_once(tables, dest, job.input_file, moment_of(job.create_ns)), 0, dest)
    if dest.startswith("bq://"):
        answered = (texts for texts, _ in _answered(job, rows, count, config))
        succeeded, failed = write_output(tables, dest, job.input_file, answered, moment_of(job.create_ns))
        return Delivered(succeeded, failed, dest)
    bucket, _, prefix = dest.removeprefix("gs://").partition("/")
    directory = f"{prefix.rstrip('/')}/prediction-model-{timestamp(job.create_ns, 6)}"
    shard_count = max(config.cloud_shards, 1)
    drafts = [objects.draft() for _ in range(shard_count)]
    failed = 0
    with ExitStack() as files:
        shards = [files.enter_context(draft.open("wb")) for draft in drafts]
        for number, (texts, has_failed) in enumerate(_answered(job, rows, count, config)):
            failed += has_failed
            # Rows that follow each other go to different objects: their order is not to be relied on.
            shards[(number * 7 + 3) % shard_count].write(b"".join(text + b"\n" for text in texts))
    for number, draft in enumerate(drafts):
        name = "predictions.jsonl" if shard_count == 1 else f"predictions.jsonl-{number:05}-of-{shard_count:05}"
        objects.finish(draft, bucket, f"{directory}/{name}", content_type="application/octet-stream", metadata={})
    _leave(objects, bucket, f"{directory}/incremental_predictions.jsonl", _first_rows(objects, bucket, directory))
    _leave(objects, bucket, f"{directory}/row_count.json", json.dumps({"rows": count}).encode())
    return Delivered(count - failed, failed, f"gs://{bucket}/{directory}")


def _answered(job: JobRecord, rows: Path, count: int, config: SandboxConfig) -> Generator[tuple[list[bytes], bool]]:
    """Yield for each of the first `count` rows the lines that stand for it, and whether it has failed."""
    with MetOnce(rows.parent) as met, rows.open("rb") as lines:
        writer = RowWriter(
            "generate",
            job.model,
            is_inline=False,
            faults=config.row_faults,
            echoes_keys=config.echoes_keys,
            met=met.digests,
        )
        moment = timestamp(job.create_ns, 3).replace("Z", "+00:00")
        for line in islice(lines, count):
            yield _row(line, writer, moment)


def _row(line: bytes, writer: RowWriter, moment: str) -> tuple[list[bytes], bool]:
    """Return what stands for a row in the output: its members, `status`, `response` and a time."""
    given = msgspec.json.decode(line, type=dict[str, Any])
    if (problem := _problem(given["request"])) is not None:
        return [_line(given, {"error": {"code": 3, "message": problem}}, moment)], True
    output = writer.write(line)
    texts = []
    for text in output.texts:
        try:
            answered = json.loads(text)
        except ValueError:
            texts.append(text)
            continue
        # What stands under another key than was sent, or under none, is what a test has asked for.
        own = {name: value for name, value in given.items() if name != "key"}
        own |= {"key": answered["key"]} if "key" in answered else {}
        texts.append(_line(own, answered, moment))
    return texts, output.failed


def _line(given: dict[str, Any], answered: dict[str, Any], moment: str) -> bytes:
    error = answered.get("error") or answered.get("status")
    status = ""
    if error:
        code = status_code_of(error.get("code", 13))
        inner = {"code": code, "message": error.get("message", ""), "status": status_name(code)}
        status = f"{_WORDS.get(code, 'Internal Server Error')}: {json.dumps({'error': inner})}"
    row = {**given, "status": status, "response": {} if error else answered.get("response"), "processed_time": moment}
    return json.dumps(row, ensure_ascii=True).encode()


def _problem(request: Any) -> str | None:
    """Return why Vertex AI would not answer a request, None when it would."""
    try:
        check_request(request, "generate")
    except RequestProblem as problem:
        return f"Invalid JSON payload received. {problem.text}"
    contents = request.get("contents", [])
    if any(content.get("role") not in _ROLES for content in contents if isinstance(content, dict)):
        return "Please use a valid role: user, model."
    if request.get("cachedContent") or request.get("cached_content"):
        return "[sandbox] Explicit caching is not supported in batches."
    return None


def _first_rows(objects: Objects, bucket: str, directory: str) -> bytes:
    for part in objects.listed(bucket, f"{directory}/predictions.jsonl"):
        with objects.path(part).open("rb") as file:
            if line := file.readline():
                return line
    return b""


def _leave(objects: Objects, bucket: str, name: str, content: bytes) -> None:
    draft = objects.draft()
    draft.write_bytes(content)
    objects.finish(draft, bucket, name, content_type="application/json", metadata={})
