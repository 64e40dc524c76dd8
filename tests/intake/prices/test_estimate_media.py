"""Media in an estimate: counted by what is known of them, and never more at Gemini than the high figure says."""

import base64
import json
import zlib
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from gemini_batch_mcp.domain import JsonObject
from gemini_batch_mcp.intake.files.in_lines import Parts
from gemini_batch_mcp.intake.files.placeholder import Known, known_of, placeholder
from gemini_batch_mcp.intake.files.planning import plan_attachments
from gemini_batch_mcp.intake.prices.estimate import Counting, Estimate, count, estimate, limits_of
from gemini_batch_mcp.intake.prices.price_list import load_prices
from gemini_batch_mcp.intake.prices.tokens import Tokens, media_counts, offline_counts
from gemini_batch_mcp.intake.validator.terms import terms_of
from gemini_batch_mcp.paths import PathGuard
from support.requests import surveyed
from support.sources import pdf

pytestmark = pytest.mark.anyio

FLASH = "gemini-3-flash-preview"
PRICES = load_prices()
TODAY = date(2026, 11, 22)
#: USD for one input token of FLASH.
INPUT = 0.25e-6
LIMIT = 1_048_576


def request(part: dict[str, Any], **members: Any) -> JsonObject:
    return {"contents": [{"parts": [part]}], "generationConfig": {"maxOutputTokens": 1}, **members}


def inline(mime_type: str, data: bytes) -> JsonObject:
    return request({"inlineData": {"mimeType": mime_type, "data": base64.b64encode(data).decode()}})


def named(mime_type: str = "", uri: str = "files/x") -> JsonObject:
    return request({"fileData": {"fileUri": uri, **({"mimeType": mime_type} if mime_type else {})}})


async def estimated(*requests: JsonObject, model: str = FLASH, counted: dict[str, int] | None = None) -> Estimate:
    surveyor = surveyed(*requests, model=model, limits=limits_of(PRICES, model, TODAY))

    async def count_one(one: JsonObject) -> int:
        assert counted is not None
        return counted[one["contents"][0]["parts"][0]["fileData"]["fileUri"]]

    counting = Counting() if counted is None else await count(surveyor.requests(), count_one)
    return estimate(surveyor.survey(), counting, model=model, task="generate", prices=PRICES, today=TODAY)


def most_counts(what: JsonObject, *, model: str) -> Tokens:
    return media_counts(terms_of(what), model=model)[1]


@pytest.mark.parametrize(
    ("what", "tokens"),
    [
        # 32 tokens a second; what Gemini would count for a file of that kind at a low rate.
        (inline("audio/ogg", b"\0" * 75_000), 100 * 32),  # 6 kbit/s
        (inline("audio/mp3", b"\0" * 100_000), 100 * 32),  # 8 kbit/s
        (inline("audio/wav", b"\0" * 800_000), 100 * 32),  # 8 kHz, 8 bits
        (inline("video/mp4", b"\0" * 500_000), 100 * (70 + 32)),  # 40 kbit/s
        (inline("application/pdf", b"%PDF-1.7 no page to be seen" + b"\0" * 20_000), 100 * 560),
        (named("application/pdf"), 1000 * 560),
        (named("audio/mpeg"), LIMIT),
        (named("video/mp4"), LIMIT - 102),
        (named("image/png"), 1120),
        (named(), LIMIT - 102),
        ({**request({"text": "hi"}), "cachedContent": "cachedContents/x"}, LIMIT),
    ],
)
async def test_the_high_figure_is_not_below_what_media_of_unknown_length_cost(what: JsonObject, tokens: int) -> None:
    found = await estimated(what)

    assert found.cost_usd_high is not None and found.cost_usd_low is not None
    assert found.cost_usd_high >= tokens * INPUT
    assert found.cost_usd_low <= found.input_tokens * INPUT < found.cost_usd_high


async def test_nothing_counts_for_more_than_one_request_can_hold() -> None:
    for mime_type in ("audio/mpeg", "video/mp4", "application/pdf", "", "text/plain"):
        for what in (named(mime_type), named(mime_type, placeholder("ab" * 32, Known(10**11, 0)))):
            assert most_counts(what, model=FLASH).total <= max(LIMIT, 10**11 * (mime_type == "text/plain"))
            assert most_counts(what, model="gemini-2.5-pro").media <= LIMIT


@pytest.mark.parametrize("model", [FLASH, "gemini-2.5-pro"])
@pytest.mark.parametrize("mime_type", ["", "image/png", "application/pdf", "audio/wav", "video/mp4", "text/plain"])
def test_the_most_is_never_less_than_what_is_expected(mime_type: str, model: str) -> None:
    uris = ["files/x", placeholder("ab" * 32, Known(40_000, 0)), placeholder("ab" * 32, Known(40_000, 7))]
    for what in (*(named(mime_type, uri) for uri in uris), inline(mime_type, b"some bytes" * 4000)):
        expected, most = offline_counts(what, model=model), most_counts(what, model=model)

        assert most.total >= expected.total > 0
        assert most.unknown_references == expected.unknown_references


async def test_files_that_gemini_has_counted_are_as_long_as_it_says() -> None:
    found = await estimated(named("video/mp4", "files/a"), named("", "files/b"), counted={"files/a": 500, "files/b": 7})

    assert found.input_tokens == 507
    assert found.cost_usd_high == pytest.approx(507 * INPUT + 2 * 1.5e-6, abs=1e-6)
    assert found.unbounded == ()


async def test_what_is_only_guessed_is_said() -> None:
    assert any("can't be inspected here" in said for said in (await estimated(named())).warnings)
    said = (await estimated(inline("audio/mp3", b"\0" * 9000))).warnings
    assert any(sentence.startswith("The length of audio, video or PDFs is unknown") for sentence in said)
    assert not any("length of audio" in said for said in (await estimated(inline("image/png", b"x"))).warnings)


async def test_large_files_that_no_sample_holds_are_part_of_the_figure() -> None:
    """One line of many has nearly all pages; every one is looked at."""
    small, large = (inline("application/pdf", b"%PDF-" + b"/Type /Page " * pages) for pages in (1, 900))
    found = await estimated(*[small] * 30, large, *[small] * 30)

    assert found.input_tokens == pytest.approx(960 * 560, rel=0.01)
    assert found.cost_usd_high is not None
    assert 960 * 560 * INPUT <= found.cost_usd_high <= 970 * 560 * INPUT + 61 * 1.5e-6


def test_pages_of_a_pdf_inside_a_line_are_counted_though_they_are_packed() -> None:
    pages = zlib.compress(b"<</Type /Page>> " * 12)
    data = b"%PDF-1.7\n1 0 obj <</Type /ObjStm /Length 99>> stream\n" + pages + b"\nendstream"

    assert offline_counts(inline("application/pdf", data), model=FLASH).total == 12 * 560


def test_a_file_that_is_still_to_be_uploaded_is_counted_by_what_is_known_of_it(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(pdf(3))
    (tmp_path / "t.csv").write_text("file\na.pdf\n", encoding="utf-8")
    guard = PathGuard(roots=(tmp_path,), working_directory=tmp_path)
    plan = plan_attachments(tmp_path / "t.csv", column="file", guard=guard, scratch=tmp_path, max_in_lines_bytes=0)
    part = json.loads(Parts(plan, None).of(b'"a.pdf"').removesuffix(b","))

    counts = offline_counts(request(part), model=FLASH)
    assert (counts.image, counts.unknown_references) == (3 * 560, 0)
    assert most_counts(request(part), model=FLASH) == counts


def test_a_placeholder_tells_what_it_was_told() -> None:
    for known in (Known(0, 0), Known(5, 0), Known(10**11, 999)):
        assert known_of("https://host/v1beta/" + placeholder("ab" * 32, known)) == known
    for other in ("", "files/x", "files/not-uploaded-yet-abcdefabcdef", "files/not-uploaded-yet-x-5-bytes"):
        assert known_of(other) is None
