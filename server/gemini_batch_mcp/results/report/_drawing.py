"""From Vega-Lite specifications to SVG that can stand inside a page: drawn elsewhere, then reduced to what is allowed.

Colours are CSS variables of the page, so that one picture serves light and dark; text stays text.
"""

import json
import re
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Final
from xml.etree import ElementTree

from gemini_batch_mcp.errors import ConfigurationError, StorageError
from gemini_batch_mcp.results.report._html import Html, element, joined

#: Drawing takes about a second; more than this means that something is broken.
_MAX_SECONDS: Final = 120
_RENDERER: Final = "gemini_batch_mcp.results.report._renderer"

#: All that is taken over from a drawing: by element, its attributes.
_ALLOWED: Final[Mapping[str, frozenset[str]]] = {
    "g": frozenset({"transform"}),
    "path": frozenset({"d", "fill", "opacity", "stroke", "stroke-width", "transform"}),
    "line": frozenset({"transform", "x2", "y2", "stroke", "stroke-width", "opacity"}),
    "text": frozenset({"transform", "text-anchor", "font-size", "font-weight", "fill", "opacity"}),
}
_LONG_NUMBER: Final = re.compile(r"-?\d+\.\d{3,}(?:e-?\d+)?")


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart to draw: what it is called, what it says in words, and how. `stretches` fits any width, without text."""

    title: str
    words: str
    specification: Mapping[str, Any]
    stretches: bool = False


def require_charts() -> None:
    """Check that charts can be drawn.

    Raises:
        ConfigurationError: the extra `report` is not installed.
    """
    if find_spec("vl_convert") is None:
        raise ConfigurationError(
            'A report needs one more package for its charts: install it with pip install "gemini-batch-mcp[report]".'
        )


def draw(charts: Sequence[Chart]) -> list[Html]:
    """Return the charts as inline SVG, in order.

    Raises:
        StorageError: the process that draws failed.
    """
    specifications = json.dumps([chart.specification for chart in charts])
    try:
        drawn: list[str] = json.loads(_drawn(specifications))
    except (OSError, ValueError) as error:
        raise StorageError(
            f"The charts of the report could not be drawn ({type(error).__name__}).",
            'Reinstall the package with pip install --force-reinstall "gemini-batch-mcp[report]".',
        ) from error
    return [_inline(svg, chart, number) for number, (svg, chart) in enumerate(zip(drawn, charts, strict=True), start=1)]


def _drawn(specifications: str) -> str:
    """Return what the process that draws writes; nothing where it fails, or takes too long.

    Its input stays open until it has written: it ends when that ends, and so with this process.
    """
    process = subprocess.Popen(  # noqa: S603 - our own module under our own interpreter
        # -P: a file in the working directory never stands in for a package.
        [sys.executable, "-P", "-m", _RENDERER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding="utf-8",
    )
    timer = threading.Timer(_MAX_SECONDS, process.kill)
    timer.daemon = True
    timer.start()
    try:
        with process:
            assert process.stdin is not None, "it was opened as a pipe"
            assert process.stdout is not None, "it was opened as a pipe"
            process.stdin.write(f"{specifications}\n")
            process.stdin.flush()
            return process.stdout.read()
    finally:
        timer.cancel()


def _inline(svg: str, chart: Chart, number: int) -> Html:
    root = ElementTree.fromstring(svg)  # noqa: S314 - written by our own process from our own specification
    return element(
        "svg",
        element("title", chart.title, id=f"chart-{number}-title"),
        element("desc", chart.words, id=f"chart-{number}-words"),
        *(_reduced(child) for child in root),
        role="img",
        class_="stretches" if chart.stretches else "chart",
        viewBox=root.get("viewBox", ""),
        preserveAspectRatio="none" if chart.stretches else "",
        aria_labelledby=f"chart-{number}-title chart-{number}-words",
    )


def _reduced(node: ElementTree.Element) -> Html:
    """Return what is allowed of an element and its children; what draws nothing goes."""
    name = node.tag.rpartition("}")[2]
    allowed = _ALLOWED.get(name)
    if allowed is None or node.get("display") == "none" or node.get("class") == "background":
        return Html("")
    children = joined(*(_reduced(child) for child in node))
    if name == "g" and not children:
        return Html("")
    # Marks tell their figures in a label; as a title it is shown where the pointer rests.
    if node.get("role") == "graphics-symbol" and name == "path":
        children = element("title", node.get("aria-label", ""))
    attributes = {
        key: _LONG_NUMBER.sub(lambda match: f"{float(match[0]):.2f}", value)
        for key, value in node.items()
        if key in allowed and (key, value) not in (("opacity", "1"), ("transform", "translate(0,0)"))
    }
    if name == "g" and not attributes:
        return children
    return element(name, node.text or "", children, **attributes)
