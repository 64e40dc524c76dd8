"""The bundle as Claude Desktop has it: unpacked, started by its manifest's command, and driven through a conversation.

In an empty home directory, with a PATH of a few directories, and with its settings filled in as the format says. First
with an empty cache of uv's, so that everything comes from the package index; then unpacked anew, without a network.
Each is started twice, once in either era of the protocol; the second start finds the environment that the first made.
"""

import json
import os
import shutil
import sys
import tempfile
import time
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import anyio
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

#: The eras by the names that the client has for them: 2025-11-25, and the newest one that both know.
_ERAS: Final = ("legacy", "auto")
#: How long Claude Desktop waits for the first answer: what its SDK gives a request.
_MOST_SECONDS: Final = 60
_CONVERSATION_SECONDS: Final = 120
#: The second row fails once; `how` makes it another one for each start, as the sandbox remembers which have failed.
_ROWS: Final = """id,product,text
r1,mug,Good.
r2,lamp,"Broken after {how}. [[sandbox:error:8]][[sandbox:once]]"
r3,mug,Fine.
r4,lamp,Late.
"""
_KEYS: Final = ["r1", "r2", "r3", "r4"]


class Failed(Exception):
    """A start or a conversation did not go as it has to; what happened."""


@dataclass(frozen=True)
class Start:
    """A start that went well: the seconds until it listed its tools, and those of the conversation after that."""

    how: str
    first_answer_seconds: float
    conversation_seconds: float

    def __str__(self) -> str:
        return (
            f"{self.how}: its tools after {self.first_answer_seconds:.1f} s, "
            f"the whole conversation in {self.conversation_seconds:.1f} s more"
        )


def drive(bundle: Path, place: Path) -> list[Start]:
    """Start the server of a bundle in each of the four ways, and have the conversation each time.

    `place` is an empty directory. Needs a package index.

    Raises:
        Failed: a start or a conversation did not go as it has to.
    """
    (place / "home").mkdir()
    starts = []
    for cache, variables in (("empty cache", {}), ("filled cache, no network", {"UV_OFFLINE": "1"})):
        unpacked = place / cache.partition(" ")[0]
        with zipfile.ZipFile(bundle) as packed:
            packed.extractall(unpacked)
        manifest = json.loads((unpacked / "manifest.json").read_text(encoding="utf-8"))
        for era in _ERAS:
            how = f"{cache}, started again" if era == _ERAS[-1] else cache
            data = place / f"data, {how}"
            data.mkdir()
            (data / "reviews.csv").write_text(_ROWS.format(how=how), encoding="utf-8")
            environment = _host_environment(place / "home") | variables
            server = server_of(manifest, unpacked, {"directory": str(data), "sandbox": True}, environment)
            starts.append(anyio.run(_driven, server, how, era, data, manifest["tools"]))
    return starts


def server_of(
    manifest: Mapping[str, Any], unpacked: Path, chosen: Mapping[str, str | bool], environment: Mapping[str, str]
) -> StdioServerParameters:
    """Return how a host of MCPB starts a bundle's server, with what the user has chosen in its settings.

    What the user has left out stands there as it is in the manifest, if it has no default: the format's own
    implementation (getMcpConfigForManifest of @anthropic-ai/mcpb) leaves it so.
    """
    defaults = {name: asked["default"] for name, asked in manifest["user_config"].items() if "default" in asked}
    values = {f"user_config.{name}": value for name, value in {**defaults, **chosen}.items()}
    words = {name: str(value).lower() if isinstance(value, bool) else value for name, value in values.items()}

    def filled_in(text: str) -> str:
        for name, word in {"__dirname": str(unpacked), **words}.items():
            text = text.replace(f"${{{name}}}", word)
        return text

    config = manifest["server"]["mcp_config"]
    given = {name: filled_in(value) for name, value in config["env"].items()}
    command = shutil.which(config["command"], path=environment["PATH"])
    if command is None:
        raise Failed(f"{config['command']} is not in {environment['PATH']}")
    return StdioServerParameters(
        command=command, args=[filled_in(text) for text in config["args"]], env={**environment, **given}, cwd="/"
    )


def _host_environment(home: Path) -> dict[str, str]:
    """Return what a program of the desktop gives its servers; beside that only what is configured for uv here.

    uv is the host's own, found first: of this environment nothing but that comes along.
    """
    programs = home / "programs"
    programs.mkdir(exist_ok=True)
    if not (programs / "uv").exists():
        (programs / "uv").symlink_to(Path(sys.executable).with_name("uv"))
    kept = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(("UV_", "SSL_")) or name.lower().endswith("_proxy")
    }
    kept.pop("UV_CACHE_DIR", None)
    path = os.pathsep.join([str(programs), str(Path(sys.base_prefix, "bin")), os.defpath])
    return {**kept, "HOME": str(home), "PATH": path}


async def _driven(server: StdioServerParameters, how: str, era: str, data: Path, tools: list[dict[str, str]]) -> Start:
    failure: Exception | None = None
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as said:
        begun = time.monotonic()
        try:
            with anyio.fail_after(_MOST_SECONDS) as limit:
                async with Client(stdio_client(server, errlog=said), mode=era) as client:
                    try:
                        offered = [tool.name for tool in (await client.list_tools()).tools]
                        listed = time.monotonic()
                        limit.deadline = anyio.current_time() + _CONVERSATION_SECONDS
                        _hold(offered, [tool["name"] for tool in tools], "its tools")
                        await _converse(client, data)
                        return Start(f"{how}, {client.protocol_version}", listed - begun, time.monotonic() - listed)
                    except Failed as error:
                        failure = error
        except Exception as error:
            # Whatever a command does that is not a server of MCP: what it has said is what helps.
            failure = error
        said.seek(0)
        raise Failed(f"{how}, era {era}: {failure!r}\n{said.read()[-2000:]}") from None


async def _converse(client: Client, data: Path) -> None:
    """Order a table, look until it has ended, read, ask, send again, save, delete: whatever a batch needs."""

    async def call(tool: str, **arguments: Any) -> dict[str, Any]:
        result = await client.call_tool(tool, arguments)
        if result.is_error or result.structured_content is None:
            raise Failed(f"{tool}: {result.content}")
        return dict(result.structured_content)

    async def ended(batch: str) -> list[tuple[str, str]]:
        while not (await call("check_status", batch=batch, wait_seconds=20))["done"]:
            pass
        page = await call("get_results", batch=batch, view="rows")
        return [(row["key"], row["status"]) for row in page["rows"]]

    source = str(data / "reviews.csv")
    order = {"source": source, "prompt": "Mood of this review of a {{product}}: {{text}}", "key_column": "id"}
    _hold((await call("preview_batch", **order))["request_count"], len(_KEYS), "requests of the preview")
    batch = (await call("create_batch", **order, confirm=True))["batch_id"]
    _hold(await ended(batch), [(key, "failed" if key == "r2" else "ok") for key in _KEYS], "rows")
    answer = await call(
        "query_results", batch=batch, sql="SELECT product, count(*) n FROM results GROUP BY 1 ORDER BY 1"
    )
    _hold(answer["rows"], [["lamp", 2], ["mug", 2]], "rows of the query")
    _hold([job["batch_id"] for job in (await call("list_jobs"))["jobs"]], [batch], "batches")
    await call("retry_failed", batch=batch, confirm=True)
    _hold(await ended(batch), [(key, "ok") for key in _KEYS], "rows after the retry")
    saved = await call("get_results", batch=batch, save_to=str(data / "answers.csv"))
    _hold(
        saved["saved"]["rows"], len((data / "answers.csv").read_text(encoding="utf-8").splitlines()) - 1, "rows saved"
    )
    await call("delete_batch", batch=batch, confirm=True)
    _hold((await call("list_jobs"))["jobs"], [], "batches after the deletion")


def _hold(found: object, expected: object, what: str) -> None:
    if found != expected:
        raise Failed(f"{what}: {found}, and not {expected}")
