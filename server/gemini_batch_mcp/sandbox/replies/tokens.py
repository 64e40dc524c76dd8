"""How many tokens the sandbox counts in a text: an estimate that needs no vocabulary."""

from typing import Final

_CHARACTERS_PER_TOKEN: Final = 4


def text_tokens(text: str) -> int:
    """Return about a quarter of the ASCII characters plus one for each other character, at least 1 for any text."""
    if text.isascii():
        return -(-len(text) // _CHARACTERS_PER_TOKEN)
    ascii_characters = len(text.encode("ascii", "ignore"))
    return -(-ascii_characters // _CHARACTERS_PER_TOKEN) + len(text) - ascii_characters
