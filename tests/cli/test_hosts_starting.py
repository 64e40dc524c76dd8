"""Each host's entry started as that host starts it: from its own file, with its PATH, its variables, its directory.

What each does is from its documentation, and for Claude Code, Codex and Gemini CLI from the programs themselves: `make
clients` has them start the same entries.
"""

import json
import re
import subprocess
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from gemini_batch_mcp.assistant.tools import TOOLS
from gemini_batch_mcp.cli.hosts.known import HOSTS
from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.sandbox.config import ByTime, SandboxConfig
from support.conversation import Run, request_file
from support.extent import long
from support.servers import ServerProcess

KEY: Final = "AIzaSomebodysKey-0123456789"
#: Who starts a program from a terminal has more directories and variables than a desktop gives, and the key among them.
TERMINAL: Final = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "EDITOR": "vi", "GEMINI_API_KEY": KEY}
DESKTOP: Final = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "LANG": "C.UTF-8", "XPC_SERVICE_NAME": "0"}
#: What MCP's SDKs hand on where a host adds nothing, and what Codex does.
OF_SDKS: Final = ("HOME", "LOGNAME", "PATH", "SHELL", "TERM", "USER")
OF_CODEX: Final = (*OF_SDKS, "LANG", "LC_ALL", "TMPDIR", "TZ")
#: Names that Gemini CLI keeps from its servers.
REDACTED: Final = re.compile("TOKEN|SECRET|PASSWORD|PASSWD|KEY|AUTH|CREDENTIAL|CREDS|PRIVATE|CERT", re.IGNORECASE)

Entry = Mapping[str, Any]
Variables = Mapping[str, str]


def _named(pattern: str, variables: Variables) -> Callable[[str], str]:
    """Fill in what `pattern` finds by its variable; what is not set stays as it is."""
    return lambda value: re.sub(pattern, lambda found: variables.get(found[1], found[0]), value)


def _given(entry: Entry, fill_in: Callable[[str], str] = str) -> dict[str, str]:
    return {name: fill_in(value) for name, value in entry.get("env", {}).items()}


def _only(names: tuple[str, ...], variables: Variables) -> dict[str, str]:
    return {name: variables[name] for name in names if name in variables}


def _as_it_stands(said: Mapping[str, Any], entry: Entry, own: Variables) -> dict[str, str]:
    return _only(OF_SDKS, own) | _given(entry)


def _claude_code(said: Mapping[str, Any], entry: Entry, own: Variables) -> dict[str, str]:
    return {**own, **_given(entry, _named(r"\$\{(\w+)\}", own)), "CLAUDECODE": "1"}


def _vscode(said: Mapping[str, Any], entry: Entry, own: Variables) -> dict[str, str]:
    """The user is asked for each input, once, and types what goes for a password where it is to stay unseen."""
    typed = {f"input:{one['id']}": KEY for one in said["inputs"] if one["type"] == "promptString" and one["password"]}
    return {**own, **_given(entry, _named(r"\$\{([\w:-]+)\}", typed))}


def _cursor(said: Mapping[str, Any], entry: Entry, own: Variables) -> dict[str, str]:
    return _only(OF_SDKS, own) | _given(entry, _named(r"\$\{env:(\w+)\}", own))


def _codex(said: Mapping[str, Any], entry: Entry, own: Variables) -> dict[str, str]:
    return _only((*OF_CODEX, *entry["env_vars"]), own) | _given(entry)


def _gemini_cli(said: Mapping[str, Any], entry: Entry, own: Variables) -> dict[str, str]:
    """Its file is filled in as it is read, before anything is kept back."""
    kept = {name: value for name, value in own.items() if not REDACTED.search(name)}
    return {**kept, **_given(entry, _named(r"\$\{?(\w+)\}?", own)), "GEMINI_CLI": "1"}


@dataclass(frozen=True)
class Host:
    """How a host starts servers: what it gives them, and whence it is started itself."""

    name: str
    file: str
    before: str
    environment: Callable[[Mapping[str, Any], Entry, Variables], dict[str, str]]
    own: Variables
    is_in_project: bool = False

    def read(self, text: str) -> dict[str, Any]:
        """Read its file as strictly as it does: comments are VS Code's only."""
        if self.name == "codex":
            return tomllib.loads(text)
        said: dict[str, Any] = json.loads(re.sub(r"^\s*//.*$", "", text, flags=re.M) if self.name == "vscode" else text)
        return said


ANOTHER: Final = '{\n  "mcpServers": {\n    "files": {"command": "npx", "args": ["-y", "files"]}\n  }\n}\n'
STARTS: Final = (
    Host(
        "codex",
        ".codex/config.toml",
        'model = "o5"  # mine\n\n[mcp_servers.files]\ncommand = "npx"\n',
        _codex,
        TERMINAL,
        is_in_project=True,
    ),
    Host("claude-code", ".claude.json", ANOTHER, _claude_code, TERMINAL, is_in_project=True),
    Host("gemini-cli", ".gemini/settings.json", ANOTHER, _gemini_cli, TERMINAL, is_in_project=True),
    # Started as `cursor .`: from a dock it has only what the session of the desktop was given.
    Host("cursor", ".cursor/mcp.json", ANOTHER, _cursor, TERMINAL),
    Host(
        "vscode",
        ".config/Code/User/mcp.json",
        '{\n\t// by hand\n\t"servers": {\n\t\t"files": { "command": "npx" }\n\t}\n}\n',
        _vscode,
        DESKTOP,
    ),
    Host("claude-desktop", ".config/Claude/claude_desktop_config.json", ANOTHER, _as_it_stands, DESKTOP),
    Host("antigravity", ".gemini/antigravity/mcp_config.json", ANOTHER, _as_it_stands, DESKTOP),
)


def test_every_host_is_among_them() -> None:
    assert {host.name for host in STARTS} == HOSTS.keys()


@long
@pytest.mark.parametrize("host", STARTS, ids=lambda host: host.name)
def test_the_entry_starts_as_its_host_starts_it_and_an_order_goes_out_with_the_key(
    tmp_path: Path, run: Run, data: Path, host: Host
) -> None:
    home = tmp_path / "person"
    file = home / host.file
    file.parent.mkdir(parents=True)
    file.write_text(host.before, encoding="utf-8")
    person = {"HOME": str(home), "USER": "person", "LOGNAME": "person", "SHELL": "/bin/sh"}
    copied = () if HOSTS[host.name].can_refer else ("--copy-key",)
    done = run("install", host.name, *copied, "--no-start", env={**person, "GEMINI_API_KEY": KEY}, sandbox=False)
    assert done.returncode == 0, done.stderr

    text = file.read_text(encoding="utf-8")
    assert (KEY in text) == bool(copied)
    said = host.read(text)
    servers = said[HOSTS[host.name].path[0]]
    assert servers.keys() == {"files", "gemini-batch"}
    entry = servers["gemini-batch"]
    with (
        Sandbox(tmp_path / "service", SandboxConfig(pace=ByTime(0), accepted_keys=frozenset({KEY}))) as service,
        service.listening() as base_url,
    ):
        # What a person adds by hand whose Gemini is at an address of its own.
        entry["env"]["GOOGLE_GEMINI_BASE_URL"] = base_url
        environment = host.environment(said, entry, {**host.own, **person})
        cwd = data if host.is_in_project else home
        with _started([entry["command"], *entry["args"]], environment, cwd) as server:
            tools = server.ask("tools/list", {})["result"]["tools"]
            assert [tool["name"] for tool in tools] == [spec.function.__name__ for spec in TOOLS]
            created = server.call("create_batch", source=request_file(data), confirm=True)
        assert created["batch_id"].startswith("reviews-")
        assert service.creates == 1
    # Nothing of it is anywhere but with the person.
    assert list(home.rglob("ledger*")), "the state is not in the person's home"


@contextmanager
def _started(command: list[str], environment: Variables, cwd: Path) -> Iterator[ServerProcess]:
    """Start a server with nothing but what its host gives it, in the era that hosts speak."""
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, cwd=cwd, env=dict(environment))
    server = ServerProcess(process, "legacy")
    try:
        yield server
    finally:
        server.close()
