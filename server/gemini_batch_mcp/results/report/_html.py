"""HTML that cannot be broken by what it shows: elements are built, text in them is always escaped.

No template language: with Jinja2 and its autoescape the page comes out the same but for white space, and some 150 of
its 520 lines shorter; but no type checker reads a template, and in one an attribute without quotation marks is a hole,
which cannot be written here.
"""

from html import escape
from typing import Final

from gemini_batch_mcp.results.visible import visible

_VOID: Final = frozenset({"input", "link", "meta"})


class Html(str):
    """Text that is markup already. Everything else is text to be shown."""

    __slots__ = ()


def element(name: str, /, *children: str, **attributes: str | bool) -> Html:
    """Return an element. Children that are no `Html`, and all attribute values, are escaped, hidden characters too.

    A trailing underscore of an attribute's name is dropped and others become hyphens: `class_`, `aria_label`. True
    stands for an attribute without a value; False and an empty value leave the attribute out.
    """
    written = "".join(_attribute(key, value) for key, value in attributes.items() if value is True or value)
    start = f"<{name}{written}>"
    return Html(start) if name in _VOID else Html(f"{start}{joined(*children)}</{name}>")


def joined(*children: str) -> Html:
    """Return the children one after the other; those that are no `Html` are escaped."""
    return Html(
        "".join(child if isinstance(child, Html) else escape(visible(child), quote=False) for child in children)
    )


def _attribute(key: str, value: str | bool) -> str:
    name = key.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{escape(visible(str(value)))}"'
