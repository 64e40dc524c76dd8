"""A pass that begins while a large file is being hashed finds the same, and leaves nothing where it is not needed."""

from dataclasses import replace
from pathlib import Path

import pytest

from gemini_batch_mcp.batches.orders.ahead import LEAST_BYTES, PassAhead
from gemini_batch_mcp.batches.orders.appraising import stage_lines
from gemini_batch_mcp.batches.orders.preparing import identify_for
from gemini_batch_mcp.batches.orders.pricing import read_facts
from gemini_batch_mcp.domain import Order
from gemini_batch_mcp.intake.apart.checking import LEAST_BYTES as LEAST_BYTES_APART
from gemini_batch_mcp.intake.prices.survey import Limits
from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.settings import Settings
from support.conversation import converse, desk_of, line, until
from support.extent import IS_FULL, long

pytestmark = pytest.mark.anyio

ORDER = Order(source="large.jsonl", model="gemini-3-flash-preview")
ROWS = LEAST_BYTES // 1_000_000 + 1


def large(data: Path, *, before: str = "", last: str = "") -> None:
    """Write a file of lines of a megabyte, just large enough for a pass ahead."""
    path = data / "large.jsonl"
    rows = [*(line(f"k{number}", "kettle " * 150_000) for number in range(ROWS - 1)), last or line("last")]
    path.write_text(before + "".join(f"{row}\n" for row in rows), encoding="utf-8")
    assert path.stat().st_size > LEAST_BYTES


def left(settings: Settings) -> set[str]:
    return {path.name for path in (settings.home / "staged").glob("ahead-*")}


@pytest.mark.parametrize("before", ["", "\ufeff"], ids=["sent as it is", "copied"])
async def test_it_finds_what_a_pass_after_the_hash_finds(
    settings: Settings, sandbox: Sandbox, data: Path, before: str
) -> None:
    large(data, before=before)
    found = []
    for home in ("ahead", "behind"):
        settings = replace(settings, home=settings.home.with_name(home))
        async with desk_of(settings, sandbox) as desk:
            if home == "ahead":
                assert (await desk.preview(ORDER)).request_count == ROWS
            else:
                stage_lines(desk.app, identify_for(desk.app, ORDER))
            staged = settings.home / "staged" / identify_for(desk.app, ORDER).staged_as
            facts = read_facts(staged / "facts.json")
            assert facts is not None
            lines = facts.request_file
            assert (lines.path.parent == staged) == bool(before)
            seen = (lines.count, lines.size_bytes, lines.sha256, lines.warnings, lines.keys_path.read_bytes())
            found.append((facts.survey, seen))
            # What is sent is what was checked, or its hash would not be right.
            assert (await desk.place_order(ORDER, resubmit=True)).status.batch.request_sha256 == lines.sha256
        assert left(settings) == set()

    assert found[0] == found[1]


async def test_it_is_taken_once_by_whoever_wants_the_same_figure_and_else_given_up(
    settings: Settings, sandbox: Sandbox, data: Path
) -> None:
    large(data)
    async with desk_of(settings, sandbox) as desk:
        with PassAhead(desk.app) as ahead:
            identified = identify_for(desk.app, ORDER, ahead)
            assert len(left(settings)) == 1
            assert ahead.take(identified, data, Limits(output_tokens=1)) is None, "other prices hold by now"
        await until(lambda: not left(settings))
        assert ahead.take(identified, data, ahead.limits) is None, "it was given up"

    async with desk_of(settings, sandbox) as desk:
        with PassAhead(desk.app) as ahead:
            identified = identify_for(desk.app, ORDER, ahead)
            found = ahead.take(identified, data, ahead.limits) or pytest.fail("it was not begun")
            assert (found.lines.count, found.lines.sha256) == (ROWS, identified.content_sha256)
            assert found.surveyor.survey().rows == ROWS
            assert ahead.take(identified, data, ahead.limits) is None, "it was taken"
        assert left(settings) == set()

        with PassAhead(desk.app) as ahead:
            identified = identify_for(desk.app, ORDER, ahead)
            assert ahead.take(identified, data, ahead.limits) is None, "the hash is known by now"


async def test_a_wrong_line_is_told_and_nothing_is_left(settings: Settings, sandbox: Sandbox, data: Path) -> None:
    large(data, last='{"key":"last","request":{}}')
    async with converse(settings, sandbox) as talk:
        assert f"line {ROWS}" in (await talk.refusal("create_batch", source="large.jsonl")).lower()

    assert left(settings) == set()


@pytest.mark.matrix
@long
async def test_a_file_that_another_process_checks_is_sent_as_one_that_this_one_checks(
    settings: Settings, sandbox: Sandbox, data: Path
) -> None:
    """Of more than a quarter of a gigabyte: smaller ones are checked before a process has started."""
    rows = LEAST_BYTES_APART // 1_000_000 + 1
    lines = [line(f"k{number}", "kettle " * 150_000) for number in range(rows)]
    wrong = '{"key":"k0","request":{}}'
    for last in ("", wrong) if IS_FULL else ("",):
        (data / "huge.jsonl").write_text("\n".join([*lines, last][: rows + bool(last)]) + "\n", encoding="utf-8")
        async with converse(settings, sandbox) as talk:
            if last:
                assert f"line {rows + 1}" in (await talk.refusal("create_batch", source="huge.jsonl")).lower()
            else:
                assert (await talk.call("preview_batch", source="huge.jsonl"))["request_count"] == rows
                assert (await talk.call("create_batch", source="huge.jsonl", confirm=True))["request_count"] == rows
        assert left(settings) == set()


async def test_an_order_that_stands_is_not_looked_at_again(settings: Settings, sandbox: Sandbox, data: Path) -> None:
    large(data)
    for is_again in (False, True):
        async with converse(settings, sandbox) as talk:
            batch = await talk.call("create_batch", source="large.jsonl", confirm=True)
            assert batch["reused"] == is_again
            await until(lambda: not left(settings))

    assert len(sandbox.create_records) == 1
