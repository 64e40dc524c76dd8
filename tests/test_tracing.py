"""Spans: upload, create, poll and collect hang below the call that caused them, and tell figures only."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.settings import Settings
from support.conversation import converse, line, newest, write_lines

pytestmark = pytest.mark.anyio


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    # A process has one provider for good; this one is for one test.
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    yield exporter
    provider.shutdown()


def _said(spans: tuple[ReadableSpan, ...]) -> str:
    return "\n".join(span.to_json() for span in spans)


async def test_what_takes_time_is_a_span_without_prompts_answers_and_keys(
    settings: Settings, sandbox: Sandbox, data: Path, exporter: InMemorySpanExporter, era: str
) -> None:
    source = write_lines(data / "rows.jsonl", [line("k1", "a secret prompt [[sandbox:echo_key]]")])
    async with converse(settings, sandbox, era) as talk:
        batch = (await talk.call("create_batch", source=source))["batch_id"]
        sandbox.finish(newest(sandbox))
        await talk.call("check_status", batch=batch)
        row = (await talk.call("get_results", batch=batch, view="rows"))["rows"][0]
        sandbox.fail_next("files.start", status=400, times=9)
        await talk.refusal("create_batch", source=write_lines(data / "more.jsonl", [line("k1", "another prompt")]))

    spans = exporter.get_finished_spans()
    ours = {span.name: span for span in spans if span.instrumentation_scope.name == "gemini-batch-mcp"}  # type: ignore[union-attr]  # ended spans have one
    assert ours.keys() == {"upload", "create", "poll", "collect"}
    for span in ours.values():
        assert (span.attributes or {}).get("gemini_batch.batch"), span.name
    by_id = {span.context.span_id: span for span in spans if span.context is not None}
    for name, tool in (("create", "create_batch"), ("collect", "get_results")):
        parent = ours[name].parent
        assert parent is not None
        assert by_id[parent.span_id].name == f"tools/call {tool}"
    failed = [span for span in spans if span.name == "upload" and not span.status.is_ok]
    assert [(span.attributes or {})["error.type"] for span in failed] == ["Rejected"]
    for secret in ("secret prompt", "another prompt", row["text"], "test-key-do-not-show", "upload_id", str(data)):
        assert secret not in _said(spans), secret
