"""A report as a document: it loads nothing, runs nothing but its own script, and shows hostile text as text."""

import base64
import re
from hashlib import sha256

import pytest

from gemini_batch_mcp.results.report._html import Html, element, joined
from gemini_batch_mcp.results.report._page import page
from gemini_batch_mcp.results.report._words import STATUSES
from support.answers import HOSTILE, Page, hostile_page, read_page

#: Elements that a report consists of. None of them can load, submit or embed anything.
ALLOWED = re.compile(
    "a|article|b|body|button|caption|code|dd|desc|details|dialog|div|dl|dt|figcaption|figure|footer|g|h[1-3]|head|header|html|"
    "input|label|li|line|link|main|meta|nav|noscript|ol|option|p|path|script|section|select|small|span|style|summary|"
    "svg|table|tbody|td|text|th|thead|time|title|tr|ul"
)
#: Attributes that can name an address, wherever they stand.
ADDRESSES = {"src", "srcset", "href", "xlink:href", "action", "formaction", "poster", "data", "background", "ping"}


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Page:
    """The page of a batch in which everything is hostile."""
    return read_page(hostile_page(tmp_path_factory.mktemp("hostile")))


def test_hostile_text_adds_no_element_and_no_attribute(hostile: Page) -> None:
    assert {name for name, _ in hostile.elements if not ALLOWED.fullmatch(name)} == set()
    assert not any(
        attribute.startswith("on") or attribute == "style" for _, given in hostile.elements for attribute in given
    )
    assert len(hostile.named("script")) == 2
    assert len(hostile.named("style")) == 1


def test_hostile_text_is_there_to_be_read(hostile: Page) -> None:
    for text in HOSTILE[:5]:
        assert text in hostile.words, text
    assert "</title><script>window.hacked" in hostile.title
    texts = {row[4] for row in hostile.data["rows"]}
    assert {HOSTILE[0], HOSTILE[1], HOSTILE[2], HOSTILE[4], HOSTILE[5], HOSTILE[10], HOSTILE[11]} <= texts
    assert "lone \ufffd" in texts


def test_hostile_fields_are_counted_and_laid_against_hostile_columns(hostile: Page) -> None:
    for name in (HOSTILE[1], HOSTILE[3], HOSTILE[4]):
        assert f"{name} by " in hostile.words, name
    regions = [region["aria-label"] for region in hostile.named("div") if region.get("role") == "region"]
    assert any(region.startswith(f"{HOSTILE[1]} by ") for region in regions)
    assert "What the retries changed" in hostile.words
    heads = [head for head in hostile.named("th") if head.get("scope") == "row"]
    assert len(heads) > 20
    assert all(head.get("scope") in ("row", "col") for head in hostile.named("th"))


def test_characters_that_hide_or_reorder_are_written_out(hostile: Page) -> None:
    assert not re.search(
        "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]", hostile.source
    )
    texts = {row[4] for row in hostile.data["rows"]}
    assert "<U+202E>right to left<U+202C> <U+2066>isolated<U+2069>" in texts
    assert "nul<U+0000> bell<U+0007> escape<U+001B>[31m" in texts
    assert "<U+D800><U+202E>" in hostile.words


def test_a_cell_of_a_megabyte_is_cut_and_says_so(hostile: Page) -> None:
    (huge,) = (row[4] for row in hostile.data["rows"] if row[3] == "huge")
    assert huge.startswith("<" * 1900)
    assert huge.endswith("… [cut: 1,000,000 characters in all]")
    assert len(hostile.source) < 200_000


def test_data_in_a_script_element_cannot_end_it(hostile: Page) -> None:
    (data,) = re.findall(r'<script type="application/json" id="rows-data">(.*?)</script>', hostile.source, re.DOTALL)
    assert not set("<>&\u2028\u2029") & set(data)
    assert "\\u003cscript\\u003e" in data


def test_the_page_names_no_address_but_its_own_places(hostile: Page) -> None:
    for name, attributes in hostile.elements:
        for attribute, value in attributes.items():
            if attribute in ADDRESSES:
                assert value == "#rows" or (name == "link" and value.startswith("data:image/svg+xml,")), (name, value)
            assert "url(" not in value
    assert "url(" not in hostile.style
    assert "@import" not in hostile.style
    assert "@font-face" not in hostile.style
    for word in ("fetch", "XMLHttpRequest", "WebSocket", "import(", "sendBeacon", "innerHTML", "eval", "://", "open("):
        assert word not in hostile.script, word
    assert not any("http-equiv" in meta and meta["http-equiv"] == "refresh" for meta in hostile.named("meta"))


def test_the_policy_forbids_everything_but_the_style_and_the_script_of_the_page(hostile: Page) -> None:
    (policy,) = (
        meta["content"] for meta in hostile.named("meta") if meta.get("http-equiv") == "Content-Security-Policy"
    )
    directives = dict(directive.split(" ", 1) for directive in policy.split("; "))
    assert directives == {
        "default-src": "'none'",
        "style-src": f"'{_hash(hostile.style)}'",
        "script-src": f"'{_hash(hostile.script)}'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }


def test_the_policy_stands_before_anything_that_it_governs(hostile: Page) -> None:
    names = [name for name, _ in hostile.elements]
    assert names[:4] == ["html", "head", "meta", "meta"]
    assert hostile.elements[3][1]["http-equiv"] == "Content-Security-Policy"


def test_charts_are_named_and_described(hostile: Page) -> None:
    ids = {attributes["id"] for _, attributes in hostile.elements if "id" in attributes}
    pictures = hostile.named("svg")
    assert len(pictures) > 5
    for picture in pictures:
        assert picture["role"] == "img"
        assert set(picture["aria-labelledby"].split()) <= ids
        assert "xmlns" not in picture


def test_ids_are_given_once_and_references_lead_somewhere(hostile: Page) -> None:
    ids = [attributes["id"] for _, attributes in hostile.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in hostile.elements:
        assert set(attributes.get("aria-labelledby", "").split()) <= set(ids)
    for name in re.findall(r'byId\("([^"]+)"\)', hostile.script):
        assert name in ids, name


def test_the_script_calls_statuses_as_the_page_does(hostile: Page) -> None:
    named = re.findall(r'(\w+): \["([^"]+)", "([^"]+)"\]', hostile.script)
    assert named == [(status.value, name, sign) for status, (name, sign, _) in STATUSES.items()]


def test_elements_escape_children_and_attributes() -> None:
    built = element("p", "<b>&", Html("<i></i>"), class_='"><x', data_show="'", hidden=True, title="", dir=False)
    assert built == '<p class="&quot;&gt;&lt;x" data-show="&#x27;" hidden>&lt;b&gt;&amp;<i></i></p>'
    assert element("input", name="n") == '<input name="n">'
    assert joined() == ""


def test_a_page_of_nothing_is_a_document() -> None:
    text = page("t", [element("header")], None, None)
    assert text.startswith('<!doctype html>\n<html lang="en"><head><meta charset="utf-8">')
    assert "Written by gemini-batch-mcp" in text
    assert " on " not in text.partition("Written by")[2].partition("</p>")[0]


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(sha256(text.encode()).digest()).decode()
