"""What each client is given, a folder with a request file and the server's command, and the conversation to be had.

Standard library only: clients import it in environments of their own.
"""

import json
import re
import sys
from collections.abc import Awaitable, Callable, Collection, Generator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

#: The name that clients know the server by.
SERVER: Final = "gemini-batch"
KEYS: Final = ("k1", "k2", "k3")
_ENDED: Final = "JOB_STATE_SUCCEEDED"
#: More looks than a job of the sandbox takes.
_MOST_LOOKS: Final = 10

#: Calls a tool; returns its structured result, or raises what its error says.
CallTool = Callable[[str, dict[str, Any]], Awaitable[Mapping[str, Any]]]


@dataclass(frozen=True)
class Ground:
    """How the server is started or reached, what is in the user's folder, and what must be there in the end."""

    command: str
    args: list[str]
    env: dict[str, str]
    cwd: str
    source: str
    saved: str
    tools: list[str]
    #: Where the same server answers over HTTP; "" for clients that are not asked to.
    url: str
    #: Node, for clients that are programs of npm's; and the folder of these programs.
    node: str
    packages: str

    @classmethod
    def given(cls) -> "Ground":
        """Read what the runner has prepared: the one argument of a client's script is its file."""
        return cls(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))

    def write(self, path: Path) -> None:
        """Write it for a client's script."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")


@dataclass(frozen=True)
class Call:
    """A call that a model makes."""

    tool: str
    arguments: dict[str, Any]


async def converse(ground: Ground, offered: Collection[str], call: CallTool) -> None:
    """Have the whole conversation through a client that returns structured results."""
    assert sorted(offered) == sorted(ground.tools), offered
    preview = await call("preview_batch", {"source": ground.source})
    assert preview["ok"] is True, preview
    assert preview["request_count"] == len(KEYS), preview
    batch = (await call("create_batch", {"source": ground.source, "confirm": True}))["batch_id"]
    status: Mapping[str, Any] = {"done": False}
    for _ in range(_MOST_LOOKS):
        status = await call("check_status", {"batch": batch, "wait_seconds": 5})
        if status["done"]:
            break
    assert status["state"] == _ENDED, status
    page = await call("get_results", {"batch": batch, "view": "rows", "limit": 50})
    assert [(row["key"], row["status"]) for row in page["rows"]] == [(key, "ok") for key in KEYS], page
    saved = await call("get_results", {"batch": batch, "save_to": ground.saved})
    assert saved["saved"]["rows"] == len(KEYS), saved


def conversation(ground: Ground) -> Generator[Call, str, None]:
    """The same conversation as a model has it, who is told each result as text. Send what it heard; yields its calls.

    Raises:
        AssertionError: what it heard does not say what the next call needs.
    """
    heard = yield Call("preview_batch", {"source": ground.source})
    assert re.search(r"\b3 requests\b|request_count\W+3\b", heard), heard
    heard = yield Call("create_batch", {"source": ground.source, "confirm": True})
    found = re.search(rf"\b{Path(ground.source).stem}-[a-z0-9]{{6}}\b", heard)
    assert found is not None, heard
    batch = found[0]
    for _ in range(_MOST_LOOKS):
        heard = yield Call("check_status", {"batch": batch, "wait_seconds": 5})
        if _ENDED in heard:
            break
    assert _ENDED in heard, heard
    heard = yield Call("get_results", {"batch": batch, "view": "rows", "limit": 50})
    assert all(key in heard for key in KEYS), heard
    heard = yield Call("get_results", {"batch": batch, "save_to": ground.saved})
    assert Path(ground.saved).name in heard, heard


def assert_saved(ground: Ground) -> None:
    """The saved file is there, with every key once, in order, and an answer to each."""
    lines = [json.loads(line) for line in Path(ground.saved).read_text(encoding="utf-8").splitlines()]
    assert [line["key"] for line in lines] == list(KEYS), lines
    assert all(line["response"]["candidates"] for line in lines), lines
