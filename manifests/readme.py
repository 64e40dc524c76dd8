"""What the package index shows: README.md with links that lead somewhere from there. Hatchling calls it."""

import re
from pathlib import Path
from typing import Any, Final

from hatchling.metadata.plugin.interface import MetadataHookInterface

#: A link of Markdown to a place in this repository; the mark before it says that it is a picture.
_LINK: Final = re.compile(r"(!?)\[([^\]]*)\]\((?![a-z]+:|#)([^)]+)\)")


class Readme(MetadataHookInterface):
    """Puts the README into the metadata."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set `readme`, which pyproject.toml leaves to this hook."""
        home = metadata["urls"]["Homepage"]
        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": absolute(text, home)}


def absolute(text: str, home: str) -> str:
    """Return Markdown in which links to this repository are addresses below `home`."""

    def link(found: re.Match[str]) -> str:
        picture, name, place = found.groups()
        return f"{picture}[{name}]({home}/{'raw' if picture else 'blob'}/main/{place})"

    return _LINK.sub(link, text)
