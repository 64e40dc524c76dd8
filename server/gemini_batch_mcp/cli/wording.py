"""What we say names tools and their arguments, as assistants call them; a person at a terminal gets commands and flags.

One table for all texts, because the sentences are the same everywhere: advice, warnings, errors, fixes.
"""

import re
from typing import Final

#: Tools by the command that does the same.
_COMMANDS: Final = {
    "preview_batch": "preview",
    "create_batch": "create-batch",
    "check_status": "check-status",
    "get_results": "get-results",
    "query_results": "query",
    "compare_results": "compare",
    "list_jobs": "list-jobs",
    "cancel_batch": "cancel",
    "retry_failed": "retry-failed",
    "delete_batch": "delete",
}
#: Arguments by their flag; a flag without a value stands for `true`, or for any value.
_FLAGS: Final = {
    "confirm": "--yes",
    "resubmit": "--resubmit",
    "skip_invalid": "--skip-invalid",
    "wait_seconds": "--wait",
}
_OPTIONS: Final = {
    "attach": "--attach",
    "cursor": "--cursor",
    "delivery": "--delivery",
    "encoding": "--encoding",
    "format": "--format",
    "generation_config": "--config",
    "include": "--include",
    "key_column": "--key-column",
    "like": "--like",
    "limit": "--limit",
    "limit_rows": "--limit-rows",
    "model": "-m",
    "prompt": "--prompt",
    "response_schema": "--schema",
    "reuse": "--reuse",
    "sample_rows": "--sample-rows",
    "save_to": "-o",
    "system_instruction": "--system",
    "task": "--task",
    "view": "--view",
    "where": "--where",
}
#: Of these names, what stands in the text between backquotes is an argument as well: no member of a request has them.
_QUOTED: Final = ("attach", "encoding", "include", "like", "prompt", "reuse", "task", "where")
#: What is said of a server that a client starts, as a person at a terminal has to read it.
_AT_A_TERMINAL: Final = {
    "in the env part of this server's entry in your MCP client's configuration, and restart the server": (
        "in the environment, and run the command again"
    ),
    "start it with --sandbox": "run gemini-batch-mcp demo, or start a server with --sandbox",
    "Neither source nor requests was given; an order takes exactly one of them. Give a path, or a list of requests.": (
        "There is no SOURCE. Give one: a file, a directory, a glob, or an earlier batch."
    ),
    "or give the rows as `requests`": "or put the rows into a file",
    ", or give a few rows in `requests`": "",
    'give task "': 'use --task "',
    'Give task "': 'Use --task "',
    "does not go with prompt": "does not go with --prompt",
    "make the same call without confirm": "run the same command without --yes",
    "and call again with confirm": "and run it again with confirm",
}
_TOOL: Final = "|".join(_COMMANDS)
_VALUE: Final = r"""'[^']*'|"[^"]*"|\[[^\]]*\]|[^\s,.;:)]+"""
_CALL: Final = re.compile(rf"\b(?P<call>[Cc])all (?=(?:{_TOOL})\b)")
_SAME: Final = re.compile(r"\bmake the same call again with\b")
_NAMED: Final = re.compile(rf"\b(?P<tool>{_TOOL})\b(?: with (?=\w+=))?")
_ARGUMENT: Final = re.compile(rf"\b(?P<name>batch|{'|'.join([*_FLAGS, *_OPTIONS])})=(?P<value>{_VALUE})")
_ALONE: Final = "|".join(name for name in (*_FLAGS, *_OPTIONS) if "_" in name)
_EVERY: Final = "|".join((*_FLAGS, *_OPTIONS))
#: An argument named without a value: anywhere if its name can be no other word, else between backquotes, or left out.
_BARE: Final = re.compile(
    rf"""(?<![\w"'{{.-])(?:"""
    rf"""(?:[Aa]n? )?`(?P<quoted>{_ALONE}|{"|".join(_QUOTED)})(?:\.(?P<member>[^`\s]+))?`"""
    rf"""|(?P<plain>{_ALONE})"""
    rf"""|(?P<left>(?<=[Ll]eave )(?:{_EVERY})(?= out\b)|(?<=[Ll]eave out )(?:{_EVERY})\b))(?![\w"'=-]|\.\w)"""
)
_GIVE: Final = re.compile(r"\b(?P<give>[Gg])ive (?=--?\w)")


def as_commands(text: str) -> str:
    """Return one of our sentences with commands and flags in place of tools and arguments.

    `get_results with view='failures'` becomes `get-results --view failures`.
    """
    for said, meant in _AT_A_TERMINAL.items():
        text = text.replace(said, meant)
    text = _CALL.sub(lambda found: "Run " if found["call"] == "C" else "run ", text)
    text = _SAME.sub("run the same command again with", text)
    text = _NAMED.sub(lambda found: f"{_COMMANDS[found['tool']]} ".rstrip() + " " * found[0].endswith(" "), text)
    text = _BARE.sub(_named_alone, _ARGUMENT.sub(_flag, text))
    return _GIVE.sub(lambda found: "Use " if found["give"] == "G" else "use ", text)


def _named_alone(found: re.Match[str]) -> str:
    """Return the flag of an argument that is named without a value, with the member of it that is meant."""
    flag = (_FLAGS | _OPTIONS)[found["quoted"] or found["plain"] or found["left"]]
    return f"`{found['member']}` in {flag}" if found["member"] else flag


def _flag(found: re.Match[str]) -> str:
    name, value = found["name"], found["value"]
    if name == "batch":
        return value.strip("'\"")
    if name in _FLAGS:
        return _FLAGS[name]
    flag = _OPTIONS[name]
    if value.startswith("["):
        return " ".join(f"{flag} {_plain(part.strip())}" for part in value[1:-1].split(","))
    return f"{flag} {_plain(value)}"


def _plain(value: str) -> str:
    """Return a value without quotes, if a shell takes it as one word all the same."""
    inner = value[1:-1] if value[:1] in ("'", '"') else value
    return inner if inner.replace("-", "").replace("_", "").replace(".", "").isalnum() else value
