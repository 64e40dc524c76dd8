"""What kind of source a path names, by its name alone. Whether it may be read at all is `paths.py`'s matter."""

from pathlib import Path
from typing import Final

from gemini_batch_mcp.errors import UsageError

#: File name endings of request files.
REQUEST_FILE_SUFFIXES: Final = (".jsonl", ".ndjson")


def check_source_name(path: Path) -> None:
    """Refuse what is no request file by its name.

    Raises:
        UsageError: the name does not end in .jsonl or .ndjson.
    """
    if path.suffix.lower() not in REQUEST_FILE_SUFFIXES:
        raise UsageError(
            f"{path.name} is not a JSONL file.",
            'Give a .jsonl file with one {"key":"…","request":{…}} on each line, or give the rows as `requests`.',
        )
