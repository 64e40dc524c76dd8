"""The dashboard in a real browser, inside the AppBridge of the MCP Apps SDK, over a real server on the sandbox.

Needs Debian's `chromium` and the packages of tests/js. `DASHBOARD_PICTURES=directory` has a picture of each view and
theme written there; `make pictures` renews the one in the README.
"""

import os
import re
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from gemini_batch_mcp.assistant.resources.dashboard import DASHBOARD_URI
from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.sandbox.config import OnCommand, SandboxConfig
from gemini_batch_mcp.settings import Secret, Settings
from support.answers import HOSTILE
from support.conversation import Conversation, converse, newest
from support.extent import long
from support.npm import chromium, talk_to_node
from support.services import MovedClock

Seen = dict[str, Any]

BOUND_TOOLS = {"check_status", "get_results", "list_jobs", "compare_results"}
ROWS = 120
RAN_SECONDS = 42 * 60
#: How rows of the batch "moods" go wrong, by their number.
TROUBLE = {7: "error:14", 19: "error:14", 31: "error:8", 43: "blocked", 58: "cut_text", 77: "empty", 90: "dropped"}
LEGEND = ["113\nok", "3\nfailed", "1\nblocked", "1\ntruncated", "1\nempty", "1\nmissing"]
MOODS = ["delighted", "content", "neutral", "annoyed"]
SCHEMA = {
    "type": "object",
    "properties": {
        "mood": {"type": "string", "enum": MOODS},
        "topic": {"type": "string", "enum": ["delivery", "price", "quality", "service", "size"]},
        "wants_reply": {"type": "boolean"},
        "reason": {"type": "string"},
    },
    "required": ["mood", "topic", "wants_reply", "reason"],
}
#: A field whose name and values are hostile, and one with several values a row.
ODD_NAME = '<img src=x onerror="alert(1)">'
ODD_SCHEMA = {
    "type": "object",
    "properties": {
        ODD_NAME: {"type": "string", "enum": [HOSTILE[0], HOSTILE[6]]},
        "tags": {"type": "array", "items": {"type": "string", "enum": ["late", "broken"]}, "minItems": 1},
    },
    "required": [ODD_NAME, "tags"],
}
REVIEWS = (
    "The kettle boils fast and the handle stays cool.",
    "It came with a cracked lid.",
    "Loud, but the coffee is good.",
)


async def _ordered(talk: Conversation, sandbox: Sandbox) -> dict[str, str]:
    """Order four batches, and return the id of each by its name: one waits, two are done, and "moods" is half done."""
    few = {"requests": [{"key": f"k{number}", "prompt": f"Row {number}"} for number in range(20)]}
    short = {"generation_config": {"maxOutputTokens": 10}}
    ids = {"invoices": (await talk.call("create_batch", **few, **short, display_name="invoices-march"))["batch_id"]}
    ids["odd"] = await _order(talk, **few, display_name="invoices-april", response_schema=ODD_SCHEMA)
    sandbox.finish(newest(sandbox))
    hostile = [{"key": f"{number} {text}", "prompt": text} for number, text in enumerate(HOSTILE)]
    marks = {"long": "[[sandbox:chars:9000]]", "half": "[[sandbox:surrogate]]", "line": "[[sandbox:separator]]"}
    hostile += [{"key": key, "prompt": mark} for key, mark in marks.items()]
    hostile += [{"key": "emoji", "prompt": "\U0001f600" * 190}, {"key": "error", "prompt": "[[sandbox:error:13]]"}]
    ids["hostile"] = await _order(talk, requests=hostile, display_name=f"hostile {HOSTILE[2]}")
    sandbox.finish(newest(sandbox))
    ids["moods"] = await _order(talk, **_moods(), generation_config={"maxOutputTokens": 300})
    sandbox.advance(newest(sandbox))
    return ids


def _moods() -> dict[str, Any]:
    rows: list[dict[str, str]] = [
        {"id": f"review-{number:03}", "mood_before": MOODS[number % 4]}
        | {"review": f"{REVIEWS[number % 3]} {number} {_mark(number)}"}
        for number in range(1, ROWS + 1)
    ]
    moods: dict[str, Any] = {"requests": rows, "prompt": "{{review}}", "key_column": "id", "display_name": "moods"}
    return moods | {"response_schema": SCHEMA}


async def _rival(talk: Conversation, sandbox: Sandbox) -> str:
    """Have another prompt answer the rows of "moods", whose retry comes to its end; returns the id of the batch."""
    sandbox.finish(newest(sandbox))
    rival = _moods() | {"prompt": "Which mood? {{review}}", "display_name": "rival"}
    batch = await _order(talk, **rival, generation_config={"maxOutputTokens": 300})
    sandbox.finish(newest(sandbox))
    await talk.call("check_status", batch=batch)
    return batch


async def _order(talk: Conversation, **order: Any) -> str:
    """Order what costs more than nothing as whoever cannot be asked has to: after its price was shown."""
    await talk.call("preview_batch", **order)
    return str((await talk.call("create_batch", **order, confirm=True))["batch_id"])


def _mark(number: int) -> str:
    return f"[[sandbox:{TROUBLE[number]}]]" if number in TROUBLE else ""


async def _walk(directory: Path) -> Seen:
    data = directory / "data"
    data.mkdir()
    settings = Settings(
        home=directory / "home",
        files=directory / "home" / "files",
        roots=(data,),
        working_directory=data,
        api_key=Secret("test-key-do-not-show", "GEMINI_API_KEY"),
        poll_seconds=0.01,
        reconcile_seconds=0.05,
        # Above what 20 short answers may cost, below what 4 usual ones likely do.
        confirm_above_usd=0.0004,
    )
    clock = MovedClock()
    with Sandbox(directory / "service", SandboxConfig(pace=OnCommand(), clock_ns=clock)) as sandbox:
        async with converse(settings, sandbox, "auto") as talk:
            ids = await _ordered(talk, sandbox)

            async def answer(question: dict[str, Any]) -> Any:
                if question["what"] == "page":
                    return await _page(talk)
                if question["what"] == "rival":
                    return await _rival(talk, sandbox)
                if question["what"] == "finish":
                    clock.move(RAN_SECONDS)
                    return sandbox.finish(newest(sandbox)).name
                given = question["arguments"]
                named = {"batch": ids.get(given["batch"], given["batch"])} if "batch" in given else {}
                result = await talk.raw(question["name"], **given | named)
                return result.model_dump(mode="json", by_alias=True, exclude_none=True)

            pictures = os.environ.get("DASHBOARD_PICTURES", "")
            where = str(Path(pictures).resolve()) if pictures else ""
            arguments = (chromium(), str(directory / "profile"), where)
            seen: Seen = (await talk_to_node("dashboard.mjs", *arguments, answer=answer))["seen"]
        assert sandbox.unknown_requests == ()
    return seen


async def _page(talk: Conversation) -> str:
    (content,) = (await talk.client.read_resource(DASHBOARD_URI)).contents
    assert content.mime_type == "text/html;profile=mcp-app"
    return str(content.text)  # type: ignore[union-attr]  # text, as its type says


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Seen]:
    """One walk through all views, made when it is first asked for."""
    return cache(partial(anyio.run, partial(_walk, tmp_path_factory.mktemp("dashboard"))))


@pytest.fixture
def seen(walk: Callable[[], Seen]) -> Seen:
    """What there was to see. Each test is skipped by itself where there is no browser, and says so."""
    chromium()
    return walk()


def _names(calls: list[list[Any]]) -> list[str]:
    return [name for name, _ in calls]


@pytest.mark.anyio
@pytest.mark.both_eras
async def test_four_tools_name_the_page_which_is_served_with_nothing_allowed(talk: Conversation, era: str) -> None:
    tools = (await talk.client.list_tools()).tools
    bound = {name: {"ui": {"resourceUri": DASHBOARD_URI}} for name in BOUND_TOOLS}
    assert {tool.name: tool.meta for tool in tools if tool.meta} == bound
    page = await talk.client.read_resource(DASHBOARD_URI)
    (content,) = page.contents
    assert content.mime_type == "text/html;profile=mcp-app"
    nowhere: dict[str, list[str]] = {
        "connectDomains": [],
        "resourceDomains": [],
        "frameDomains": [],
        "baseUriDomains": [],
    }
    assert (content.meta or {})["ui"]["csp"] == nowhere
    listed = {resource.uri: resource for resource in (await talk.client.list_resources()).resources}
    assert listed[DASHBOARD_URI].mime_type == content.mime_type
    if era == "auto":
        assert (page.ttl_ms, page.cache_scope) == (3_600_000, "public")
        assert "io.modelcontextprotocol/ui" in (talk.client.server_capabilities.extensions or {})


@pytest.mark.anyio
async def test_the_page_is_one_small_file_that_names_no_address_and_makes_no_markup_of_texts(
    talk: Conversation,
) -> None:
    page = await _page(talk)
    assert len(page.encode()) < 40_000
    assert not re.search(r"https?:|//[a-z]|\bsrc=|\bhref=|@import|url\(", page)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|new Function|srcdoc", page)
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', page)
    assert policy is not None
    assert "default-src 'none'" in policy[1]
    assert "require-trusted-types-for 'script'; trusted-types 'none'" in policy[1]


@pytest.mark.npm
@long
def test_the_view_is_quiet_and_nothing_leaves_it(seen: Seen) -> None:
    assert {name: seen[name] for name in ("requests", "messages", "errors", "dialogs")} == {
        "requests": [],
        "messages": [],
        "errors": [],
        "dialogs": [],
    }


@pytest.mark.npm
@long
def test_before_a_result_it_says_that_it_waits_and_after_a_cancel_that_there_is_none(seen: Seen) -> None:
    assert seen["waiting"] == {
        "text": "Waiting for the call to end …",
        "note": "The call was cancelled: the user pressed Stop.",
        "calls": [],
    }
    assert "There is no batch or job 'nothing'" in seen["refused"]["note"]
    assert "title" not in seen["refused"]


@pytest.mark.npm
@long
def test_a_running_batch_shows_how_far_it_is_and_what_it_may_cost(seen: Seen) -> None:
    running = seen["running"]
    assert (running["title"], running["state"], running["share"]) == ("moods", "Running", "50 %")
    assert running["legend"] == ["60\nok", "60\npending"]
    assert running["meter"] == ["progressbar", "60", "120", "60 of 120 rows have ended: 60 ok, 60 pending"]
    assert running["said"] == "Running. 60 of 120 rows have ended."
    assert running["facts"]["Model"] == "gemini-3-flash-preview"
    assert re.fullmatch(r"\$0\.\d{4} to \$0\.\d{4}", running["facts"]["Estimate"])
    assert running["tab"] == []
    assert running["calls"] == 0


@pytest.mark.npm
@long
def test_it_looks_again_ever_more_seldom_and_stops_when_the_job_has_ended(seen: Seen) -> None:
    refreshed = seen["refreshed"]
    assert refreshed["looks"] == [[], ["check_status"], [], ["check_status"], []]
    assert _names(refreshed["calls"])[2:] == ["check_status", "get_results", "check_status", "query_results"]
    assert refreshed["later"] == []


@pytest.mark.npm
@long
def test_an_ended_batch_shows_its_outcomes_its_cost_and_the_counts_of_each_answer_field(seen: Seen) -> None:
    ended = seen["refreshed"]
    assert (ended["state"], ended["share"]) == ("Partially succeeded", "94 %")
    assert ended["rows"] == "113 of 120 rows have a good answer"
    assert ended["legend"] == LEGEND
    assert ended["facts"]["Ran"] == "42 min"
    assert re.fullmatch(r"\$0\.\d{4}", ended["facts"]["Cost"])
    assert ended["tab"] == ["Answers"]
    fields = {name: dict(counts) for name, counts in ended["fields"].items()}
    assert fields["mood"].keys() == {"delighted", "content", "neutral", "annoyed"}
    assert fields["wants_reply"].keys() == {"true", "false"}
    for name in ("mood", "topic", "wants_reply"):
        assert sum(int(count.split()[0]) for count in fields[name].values()) == 113, name
    assert fields["reason"] == {}, "free text is not counted"


@pytest.mark.npm
@long
def test_failures_are_shown_by_reason_and_row_by_row(seen: Seen) -> None:
    failures = seen["failures"]
    assert failures["tab"] == ["Failures 7"]
    assert failures["captions"] == ["Reasons", "Rows without a good answer"]
    assert set(failures["scopes"]) == {"col", "row"}
    reasons, rows = failures["table"]
    assert reasons[0] == ["2", "failed", "code 14: [sandbox] This row was made to fail with code 14.", "review-007"]
    assert [row[:2] for row in rows] == [
        [f"review-{number:03}", status]
        for number, status in zip(TROUBLE, ("failed",) * 3 + ("blocked", "truncated", "empty", "missing"), strict=True)
    ]


@pytest.mark.npm
@long
def test_tabs_and_pages_are_turned_by_the_keyboard_which_stays_where_it_was(seen: Seen) -> None:
    assert (seen["failures"]["focus"], seen["rows"]["focus"]) == ("tab-failures", "tab-rows")
    assert seen["rows"]["pager"] == ["Previous (off)", "Page 1", "Next"]
    paged = seen["paged"]
    keys = [[row[0] for row in page["table"][0]] for page in (seen["rows"], paged["second"], paged["back"])]
    assert keys[0] == keys[2] == [f"review-{number:03}" for number in range(1, 11)]
    assert keys[1] == [f"review-{number:03}" for number in range(11, 21)]
    assert (paged["second"]["focus"], paged["back"]["focus"]) == ("Next", "Previous")
    assert paged["ring"] == ["solid", "2px"]


@pytest.mark.npm
@long
def test_a_page_of_rows_that_the_assistant_asked_for_is_shown_and_gone_on_from(seen: Seen) -> None:
    page = seen["page"]
    assert page["keys"] == [row[0] for row in page["first"]["table"][0]]
    assert [row[0] for row in page["second"]["table"][0]] == [f"review-{number:03}" for number in range(5, 9)]
    assert _names(page["calls"]) == ["check_status", "get_results"]


@pytest.mark.npm
@long
def test_a_retry_shows_what_it_costs_and_is_sent_only_when_the_user_agrees(seen: Seen) -> None:
    asked, retried = seen["asked"], seen["retried"]
    assert asked["consent"].startswith("gemini-batch-mcp asks: resend 4 rows of moods-")
    assert "confirm" not in asked["consent"]
    assert asked["focus"] == "asked"
    assert [list(given) for _, given in asked["calls"]] == [["batch"]]
    assert (asked["declined"]["consent"], asked["declined"]["focus"]) == ("", "retry")
    sent = [given.get("confirm") for name, given in retried["calls"] if name == "retry_failed"]
    assert sent == [None, True]
    assert retried["note"].startswith("4 rows: ")
    assert (retried["state"], retried["consent"]) == ("Running", "")
    ((kind, told),) = retried["told"]
    assert kind == "context"
    assert "sent failed rows of moods-" in told["content"][0]["text"]
    assert retried["later"] == ["check_status"], "it looks again while the retry runs"


@pytest.mark.npm
@long
def test_it_answers_teardown_and_does_nothing_after_it(seen: Seen) -> None:
    assert seen["tornDown"] == {"answer": {}, "later": []}


@pytest.mark.npm
@long
def test_the_list_is_paged_and_opens_a_batch_by_the_keyboard(seen: Seen) -> None:
    first, second = seen["list"]["first"], seen["list"]["second"]
    assert first["head"] == ["Batch", "State", "Rows", "Created"]
    assert [row[1] for row in first["table"][0]] == ["Running", "Succeeded", "Succeeded"]
    assert first["table"][0][0][2] == "113 ok, 7 failed of 120"
    assert [row[1] for row in second["table"][0]] == ["Pending"]
    opened = seen["opened"]
    assert (opened["title"], opened["focus"]) == ("moods", "title")
    assert opened["all"]["captions"] == ["Batches"]
    assert opened["all"]["focus"] == "moods"


@pytest.mark.npm
@long
def test_hostile_texts_are_read_as_they_are_and_do_nothing(seen: Seen) -> None:
    hostile = seen["hostile"]
    assert (hostile["hacked"], hostile["strange"], hostile["scripts"]) == (False, 0, 1)
    assert hostile["title"] == f"hostile {HOSTILE[2]}"
    rows = {key: answer for key, _, answer in hostile["table"][0]}
    for number, text in enumerate(HOSTILE[:6]):
        assert rows[f"{number} {text}"].endswith(f": {text}")
    assert rows["6 <U+202E>right to left<U+202C> <U+2066>isolated<U+2069>"]
    assert rows["8 nul<U+0000> bell<U+0007> escape<U+001B>[31m"]
    assert rows["long"].endswith("… Show all")
    assert len(rows["long"]) < 300 < hostile["opened"]
    assert re.search("[^\U0001f600]: \U0001f600+… Show all$", rows["emoji"])
    assert hostile["isWellFormed"] is True
    odd = seen["odd"]["fields"]
    assert {value for value, _ in odd[ODD_NAME]} == {
        HOSTILE[0],
        "<U+202E>right to left<U+202C> <U+2066>isolated<U+2069>",
    }
    assert {value for value, _ in odd["tags"]} == {"late", "broken"}


@pytest.mark.npm
@long
def test_a_host_that_lets_no_view_call_tools_is_shown_what_there_is_and_asked_for_the_rest(seen: Seen) -> None:
    alone = seen["textOnly"]
    assert (alone["calls"], alone["later"]) == ([], [])
    assert alone["legend"] == LEGEND
    assert "Refresh" not in alone["buttons"]
    assert [row[0] for row in alone["table"][1]] == ["review-007", "review-019", "review-031"]
    ((_, message),) = alone["told"]
    assert message["content"][0]["text"].startswith("Retry the failed rows of batch moods-")


@pytest.mark.npm
@long
def test_a_comparison_shows_its_share_its_heat_map_and_the_rows_that_differ_in_pages(seen: Seen) -> None:
    compared = seen["compared"]
    told, first, second = compared["told"], compared["first"], compared["second"]
    assert first["captions"] == ["Expected in rows, actual in columns", "Rows that differ"]
    assert set(first["scopes"]) == {"col", "row"}
    figures = f"{told['equal']} of 113 rows are equal · 95 % interval {100 * told['share_low']:.1f} % to "
    assert f"{100 * told['share']:.1f} %" in compared["text"] and figures in compared["text"]
    assert "7 without an answer on one side" in compared["text"]
    crossed, differing = first["table"]
    counts = {
        (row[0], head): (cell.startswith("✓"), int(cell.split()[-1]))
        for row in crossed
        for head, cell in zip(first["head"][1:], row[1:], strict=False)
        if cell != "–"
    }
    assert counts == {
        (pair["expected"], pair["actual"]): (pair["expected"] == pair["actual"], pair["rows"]) for pair in told["table"]
    }
    assert differing == [[row["key"], row["expected"], row["actual"]] for row in told["rows"]]
    assert second["pager"] == ["Previous", "Page 2", "Next"]
    assert {row[0] for row in second["table"][1]}.isdisjoint(row["key"] for row in told["rows"])
    assert compared["opened"] == "moods"


@pytest.mark.npm
@long
def test_other_batches_of_the_same_rows_stand_side_by_side_with_what_follows(seen: Seen) -> None:
    tried = seen["tried"]
    told, first = tried["told"], tried["first"]
    assert first["captions"][0] == "Batches of the same rows"
    assert told["verdict"] in tried["text"]
    for shown, candidate in zip(first["table"][0], told["candidates"], strict=True):
        assert candidate["name"] in shown[0] and candidate["batch_id"] in shown[0]
        assert candidate["prompt"][:20] in shown[0]
        low, high = (f"{100 * candidate[name]:.1f} %" for name in ("share_low", "share_high"))
        assert f"({low} to {high})" in shown[1]
        assert shown[2].startswith("$")
    # A further page of rows leaves them where they are.
    assert tried["second"]["table"][0] == first["table"][0]
    assert tried["opened"] == "rival"


@pytest.mark.npm
@long
def test_a_server_that_fails_is_asked_ever_more_seldom_and_then_no_more(seen: Seen) -> None:
    broken = seen["broken"]
    assert broken["looks"] == [1, 1, 1, 1, 1, 0]
    assert broken["stopped"]["note"].startswith("The server is not there.")
    assert broken["again"]["note"] == ""


@pytest.mark.npm
@long
def test_it_follows_the_host_s_theme_and_fits_every_width(seen: Seen) -> None:
    light, dark, own = seen["themes"]
    assert (light, dark, own) == ("rgb(255, 255, 255)", "rgb(26, 29, 32)", "rgb(1, 2, 3)")
    assert seen["widths"] == {width: int(width) for width in ("320", "480", "1200")}
    assert seen["heights"] > 3, "the host is told how much room the view needs"
