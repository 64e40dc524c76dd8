"""An upload that travels beside the check of its lines is finished for an order that is right, wanted, and sent."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from gemini_batch_mcp.batches import app as app_module
from gemini_batch_mcp.batches.orders.ahead import LEAST_BYTES
from gemini_batch_mcp.digests import file_digest
from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.settings import Settings
from support.conversation import converse, line, until

pytestmark = pytest.mark.anyio

ROWS = LEAST_BYTES // 1_000_000 + 1
SHORT: dict[str, Any] = {"generationConfig": {"maxOutputTokens": 1}}


def large(data: Path, *, before: str = "", last: str = "", limited: int = 0) -> Path:
    """Write a file that is just large enough. The first `limited` lines say that their answers are short."""
    path = data / "large.jsonl"
    rows = [
        json.dumps({"key": f"k{number}", "request": (SHORT if number < limited else {}) | _spoken("kettle " * 150_000)})
        for number in range(ROWS - 1)
    ]
    path.write_text(before + "".join(f"{row}\n" for row in [*rows, last or line("last")]), encoding="utf-8")
    assert path.stat().st_size > LEAST_BYTES
    return path


def _spoken(text: str) -> dict[str, Any]:
    return {"contents": [{"parts": [{"text": text}]}]}


def starts(sandbox: Sandbox) -> int:
    return sum(request.route == "files.start" for request in sandbox.requests)


def cancels(sandbox: Sandbox) -> int:
    return sum(request.headers.get("x-goog-upload-command") == "cancel" for request in sandbox.requests)


def files(sandbox: Sandbox) -> list[Any]:
    return sandbox.state.files(100, None, sandbox.config.clock_ns())


async def nothing_is_there(sandbox: Sandbox, *, begun: int) -> None:
    """The uploads that were begun are cancelled, and the service has no file and no job."""
    await until(lambda: cancels(sandbox) == begun)
    assert (starts(sandbox), files(sandbox), sandbox.creates) == (begun, [], 0)


async def test_of_an_order_that_is_right_one_file_arrives_and_becomes_one_job(
    settings: Settings, sandbox: Sandbox, data: Path
) -> None:
    path = large(data)
    async with converse(settings, sandbox) as talk:
        batch = await talk.call("create_batch", source="large.jsonl")
        await until(lambda: sandbox.creates == 1)
        assert (await talk.call("create_batch", source="large.jsonl"))["reused"]

    (file,) = files(sandbox)
    assert batch["batch_id"] not in file.display_name, "it was begun before there was a batch"
    assert (starts(sandbox), cancels(sandbox), sandbox.creates) == (1, 0, 1)
    assert file_digest(sandbox.state.file_path(file.name)) == file_digest(path)


@pytest.mark.parametrize(
    ("shape", "changed", "refusal", "begun"),
    [
        ({"last": '{"key":"last","request":{}}'}, {}, f"line {ROWS}", 1),
        # The first lines promise little, the others do not.
        ({"limited": 1}, {"confirm_above_usd": 1.0}, "may cost up to", 1),
        ({"limited": 1}, {"max_cost_usd": 1.0}, "max_cost_usd", 1),
        # So many lines without a limit cost more, whatever they hold.
        ({}, {"confirm_above_usd": 1.0}, "may cost up to", 0),
        ({}, {"max_cost_usd": 1.0}, "max_cost_usd", 0),
    ],
    ids=["a wrong line", "a question", "the cap", "a question known before", "the cap known before"],
)
async def test_of_an_order_that_is_refused_there_is_no_file(
    settings: Settings,
    sandbox: Sandbox,
    data: Path,
    shape: dict[str, Any],
    changed: dict[str, Any],
    refusal: str,
    begun: int,
) -> None:
    large(data, **shape)
    async with converse(replace(settings, **changed), sandbox) as talk:
        assert refusal in (await talk.refusal("create_batch", source="large.jsonl")).lower()
        await nothing_is_there(sandbox, begun=begun)


async def test_what_is_mended_is_uploaded_as_it_was_written(settings: Settings, sandbox: Sandbox, data: Path) -> None:
    path = large(data, before="\ufeff")
    async with converse(settings, sandbox) as talk:
        await talk.call("create_batch", source="large.jsonl")
        await until(lambda: sandbox.creates == 1 and cancels(sandbox) == 1)

    (file,) = files(sandbox)
    assert starts(sandbox) == 2
    assert sandbox.state.file_path(file.name).read_bytes() == path.read_bytes().removeprefix(b"\xef\xbb\xbf")


@pytest.mark.parametrize("step", ["upload_start:after", "upload_chunk:before"])
@pytest.mark.parametrize("ends", ["the call", "the server"])
async def test_of_an_order_that_is_cut_off_there_is_no_file_and_the_next_one_is_clean(
    settings: Settings, sandbox: Sandbox, data: Path, monkeypatch: pytest.MonkeyPatch, step: str, ends: str
) -> None:
    large(data)
    cut: list[Callable[[], None]] = []

    def hook(seen: str) -> None:
        if seen == step and cut:
            cut.pop()()

    monkeypatch.setattr(app_module, "open_app", partial(app_module.open_app, hook=hook))
    with anyio.CancelScope() as server:
        async with converse(settings, sandbox) as talk:
            with anyio.CancelScope() as call:
                cut.append(call.cancel if ends == "the call" else server.cancel)
                await talk.raw("create_batch", source="large.jsonl")
            assert call.cancelled_caught
            await nothing_is_there(sandbox, begun=1)
    assert (files(sandbox), sandbox.creates) == ([], 0)

    async with converse(settings, sandbox) as talk:
        await talk.call("create_batch", source="large.jsonl")
        await until(lambda: sandbox.creates == 1)
    assert len(files(sandbox)) == 1
