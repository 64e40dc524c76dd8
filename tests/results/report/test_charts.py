"""Charts of a report: what they say in words, how they are drawn, and that their colours can be told apart."""

import json
import re
from datetime import timedelta
from importlib.resources import files
from itertools import combinations

import pytest

from gemini_batch_mcp.domain import JobState, RowStatus
from gemini_batch_mcp.results.profile.crossing import Quartiles
from gemini_batch_mcp.results.profile.spread import Bar, Spread
from gemini_batch_mcp.results.report._answer_cards import SHADES
from gemini_batch_mcp.results.report._charts import (
    Part,
    columns,
    cost_range,
    histogram,
    middle_half,
    spread,
    status_parts,
    strip,
)
from gemini_batch_mcp.results.report._drawing import draw
from gemini_batch_mcp.results.report._figures import Bin, Distribution
from gemini_batch_mcp.results.report._renderer import VEGA_LITE_VERSION
from gemini_batch_mcp.results.report._renderer import draw as render
from gemini_batch_mcp.results.report._words import duration, measure, share, short, state_look, state_name, usd
from gemini_batch_mcp.text import count
from support.answers import HOSTILE, WHEN

STATUSES = ("ok", "failed", "blocked", "truncated", "empty", "missing")
#: Colours as people see them who lack one kind of cones, in linear light (Machado, Oliveira and Fernandes 2009).
VISIONS = {
    "all cones": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "no red cones": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "no green cones": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.01182, 0.04294, 0.968881)),
    "no blue cones": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.3039)),
}


def test_a_strip_shares_out_a_whole() -> None:
    chart = strip("Rows", status_parts({RowStatus.OK: 750, RowStatus.FAILED: 250}))
    (drawn,) = draw([chart])
    assert chart.words == "OK: 750 rows (75.0 %); Failed: 250 rows (25.0 %)."
    assert re.findall(r'<path d="M(\d+),0h(\d+)v20h-\d+Z" fill="var\(--(\w+)\)"', drawn) == [
        ("0", "747", "ok"),
        ("750", "250", "failed"),
    ]
    assert "<title>OK: 750 rows (75.0 %)</title>" in drawn
    assert 'preserveAspectRatio="none"' in drawn


def test_one_row_of_a_million_can_be_seen() -> None:
    chart = strip("Rows", status_parts({RowStatus.OK: 999_999, RowStatus.MISSING: 1}))
    (drawn,) = draw([chart])
    widths = [float(width) for width in re.findall(r"h([\d.]+)v20", drawn)]
    assert len(widths) == 2
    assert widths[1] > 2
    assert sum(widths) < 1000
    assert chart.words == "OK: 999,999 rows (> 99.9 %); Missing: 1 row (< 0.1 %)."


def test_a_strip_of_nothing_is_empty() -> None:
    chart = strip("Rows", [Part("OK", 0, "ok")])
    (drawn,) = draw([chart])
    assert chart.words == "nothing yet."
    assert "<path" not in drawn


def test_columns_stack_to_the_full_height() -> None:
    chart = columns("In order", [{RowStatus.OK: 3, RowStatus.FAILED: 1}, {RowStatus.OK: 4}])
    (drawn,) = draw([chart])
    assert chart.words == "The rows in request order, in 2 equal pieces; 1 of them contain rows that are not OK."
    assert drawn.count("<path") == 3
    assert "<title>Piece 1 of 2: Failed 1 of 4 rows</title>" in drawn
    assert "var(--calm)" in drawn


def test_a_histogram_says_what_its_bars_hold() -> None:
    found = Distribution(12, 300, 20.0, 90.0, 400, (Bin(0, 10, 4), Bin(10, 20, 7), Bin(20, 30, 1)))
    (drawn,) = draw([histogram("Length", found, noun="characters")])
    assert "<title>0 to 9 characters: 4 rows</title>" in drawn
    assert "<title>20 or more characters: 1 row</title>" in drawn
    assert drawn.count("var(--rest)") == 1
    assert ">10</text>" in drawn
    single = Distribution(2, 3, 1.5, 2.0, 2, (Bin(1, 2, 1), Bin(2, 3, 1)))
    assert "<title>2 characters: 1 row</title>" in draw([histogram("Length", single, noun="characters")])[0]


def test_a_spread_says_what_its_bars_hold_and_where_the_middle_half_lies() -> None:
    bars = (Bar(0.0, 0.5, 4), Bar(0.5, 1.0, 7))
    broken = Spread(11, 0.5, -3.0, 0.25, 0.6, 0.75, 1.0, False, bars, is_cut_below=True)
    whole = Spread(9, 12.0, 0.0, 5.0, 10.0, 20.0, 90_000.0, True, (Bar(0, 10, 4), Bar(10, 20, 5)), is_cut_above=True)
    charts = [spread("Score", broken), spread("Words", whole, noun="entries")]
    charts += [middle_half("Half", Quartiles(0.25, 0.5, 2.0, 0.4), 0.0, 1.0)]
    scores, words, half = draw(charts)
    assert "<title>less than 0.5: 4 rows</title>" in scores and "<title>0.5 to 1: 7 rows</title>" in scores
    assert "11 rows from -3 to 1; half of them lie from 0.25 to 0.75, the middle one is 0.6." in scores
    assert "<title>0 to 9 entries: 4 rows</title>" in words and "<title>10 or more entries: 5 rows</title>" in words
    assert re.findall(r"M([\d.]+),0h([\d.]+)v20", half) == [("250", "750"), ("497", "6")]
    assert "half from 0.25 to 2, median 0.5." in half


def test_a_cost_is_marked_on_its_estimate() -> None:
    with_cost, without = draw([cost_range("Cost", 1.21, 2.4, 1.83), cost_range("Cost", 0.0, 0.0, None)])
    assert "<title>Estimated $1.21 to $2.40</title>" in with_cost
    assert "<title>It came to $1.83</title>" in with_cost
    assert "came to" not in without


def test_dollars_on_an_axis_are_written_as_money() -> None:
    labels = {0.0004: "$0.0004", 2.0: "$2", 20_000.0: "$20,000", 3e6: "$3,000,000"}
    for label, drawn in zip(
        labels.values(), draw([cost_range("Cost", 0.0, high, None) for high in labels]), strict=True
    ):
        assert f">{label}<" in drawn
        assert "e+" not in drawn


def test_names_from_outside_never_end_the_process_that_draws() -> None:
    parts = [Part(text, 1, "bar") for text in (*HOSTILE, "\x00", "\ud800", "\ufffe", "x" * 100_000)]
    (drawn,) = draw([strip("Hostile \x00 <title>", parts)])
    assert "<script" not in drawn
    assert "&lt;script&gt;" in drawn
    assert "\x00" not in drawn


def test_drawings_hold_only_shapes_and_text() -> None:
    found = Distribution(12, 300, 20.0, 90.0, 400, (Bin(0, 10, 4), Bin(10, 20, 7)))
    (drawn,) = draw([histogram("Length", found, noun="characters")])
    assert set(re.findall(r"<([a-z]+)", drawn)) == {"svg", "title", "desc", "g", "path", "line", "text"}
    assert "style=" not in drawn
    assert "url(" not in drawn
    assert "font-family" not in drawn
    assert "<path></path>" not in drawn


def test_the_renderer_loads_nothing() -> None:
    specification = {"data": {"url": "http://127.0.0.1:9/data.json"}, "mark": "bar"}
    with pytest.raises(ValueError, match="not allowed"):
        render(json.dumps([specification]))
    (drawn,) = json.loads(render(json.dumps([{"data": {"values": [{"a": 1}]}, "mark": "bar"}])))
    assert drawn.startswith("<svg")
    assert VEGA_LITE_VERSION == "6.4"


def test_a_share_is_whole_or_nothing_only_when_it_is() -> None:
    assert [share(part, 10_000) for part in (0, 1, 10, 5_000, 9_990, 9_999, 10_000)] == [
        *("0 %", "< 0.1 %", "0.1 %", "50.0 %", "99.9 %", "> 99.9 %", "100 %")
    ]
    assert share(0, 0) == "0 %"


def test_numbers_and_times_are_short() -> None:
    assert [short(number) for number in (0, 7, 2.914, 999, 1_000, 12_345, 999_950, 4_123_456, 7.1e9)] == [
        *("0", "7", "2.91", "999", "1 k", "12.3 k", "1 M", "4.12 M", "7.1 B")
    ]
    assert [usd(amount) for amount in (0, 0.00001, 0.0003, 0.25, 1234.5)] == [
        *("$0.00", "under $0.0001", "$0.0003", "$0.2500", "$1,234.50")
    ]
    assert [measure(number) for number in (3.0, 0.125, 12345.678, 1e20, -4e-9, 2**40)] == [
        *("3", "0.125", "12,346", "1e+20", "-4e-09", "1,099,511,627,776")
    ]
    assert [count(1, "row"), count(2, "row"), count(2, "batch", "batches")] == ["1 row", "2 rows", "2 batches"]
    spans = (0, 61, 3_600, 8_040, 90_000, -5)
    assert [duration(WHEN, WHEN + timedelta(seconds=seconds)) for seconds in spans] == [
        *("0 s", "1 min 1 s", "1 h", "2 h 14 min", "1 d 1 h", "0 s")
    ]


def test_every_state_has_a_name_a_sign_and_a_colour() -> None:
    style = files("gemini_batch_mcp.results.report").joinpath("report.css").read_text(encoding="utf-8")
    assert state_name(JobState.PARTIALLY_SUCCEEDED) == "Partially succeeded"
    for state in JobState:
        sign, look = state_look(state)
        assert sign
        assert f"--{look}:" in style


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_stand_out_from_their_ground(scheme: str) -> None:
    """WCAG 2.2: 4.5 to 1 for text, 3 to 1 for what charts and controls are made of."""
    colours = _colours(scheme)
    for ground in ("surface", "page", "sunken"):
        for text in ("ink", "muted", "accent"):
            assert _contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
    for tone in ("heat", "miss"):
        shades = [colours[f"{tone}-{shade}"] for shade in range(1, SHADES + 1)]
        assert min(_contrast(colours["ink"], shade) for shade in shades) >= 4.5
        steps = [_contrast(shade, colours["surface"]) for shade in shades]
        assert steps == sorted(steps), "a larger part is further from the ground"
    for shape in (*STATUSES, "going", "bar", "input", "output", "thoughts", "strong-line"):
        assert _contrast(colours[shape], colours["surface"]) >= 3, shape


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("vision", VISIONS)
def test_colours_of_statuses_and_tokens_differ_for_every_colour_vision(scheme: str, vision: str) -> None:
    """A difference of 20 in CIELAB is plain at a glance; 2 is just noticeable."""
    colours = _colours(scheme)
    for names in (STATUSES, ("input", "output", "thoughts")):
        for one, other in combinations(names, 2):
            seen = [_lab(_as_seen(colours[name], vision)) for name in (one, other)]
            distance = sum((a - b) ** 2 for a, b in zip(*seen, strict=True)) ** 0.5
            assert distance > 20, (one, other)


def _colours(scheme: str) -> dict[str, str]:
    style = files("gemini_batch_mcp.results.report").joinpath("report.css").read_text(encoding="utf-8")
    light, dark = re.findall(r":root \{(.*?)\}", style, re.DOTALL)[:2]
    found = dict(re.findall(r"--([a-z0-9-]+): (#[0-9a-f]{6});", light))
    return found | (dict(re.findall(r"--([a-z0-9-]+): (#[0-9a-f]{6});", dark)) if scheme == "dark" else {})


def _linear(colour: str) -> list[float]:
    parts = [part / 255 for part in bytes.fromhex(colour.removeprefix("#"))]
    return [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]


def _luminance(light: list[float]) -> float:
    return 0.2126 * light[0] + 0.7152 * light[1] + 0.0722 * light[2]


def _contrast(one: str, other: str) -> float:
    darker, lighter = sorted(_luminance(_linear(colour)) for colour in (one, other))
    return (lighter + 0.05) / (darker + 0.05)


def _as_seen(colour: str, vision: str) -> list[float]:
    light = _linear(colour)
    return [sum(factor * part for factor, part in zip(row, light, strict=True)) for row in VISIONS[vision]]


def _lab(light: list[float]) -> tuple[float, float, float]:
    red, green, blue = (max(part, 0.0) for part in light)
    white = (
        (0.4124 * red + 0.3576 * green + 0.1805 * blue) / 0.9505,
        _luminance([red, green, blue]),
        (0.0193 * red + 0.1192 * green + 0.9505 * blue) / 1.089,
    )
    x, y, z = (part ** (1 / 3) if part > 0.008856 else 7.787 * part + 16 / 116 for part in white)
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)
