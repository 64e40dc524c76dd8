"""`install` adds one entry to a host's own file, touches nothing else in it, and takes it back to the byte."""

import json
import os
import re
import stat
import tomllib
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemini_batch_mcp.cli.hosts import _jsonc, configuration, trying
from gemini_batch_mcp.cli.hosts.known import HOSTS, Launch
from gemini_batch_mcp.errors import StorageError
from support.conversation import Run
from swaps.swapping import Moments

KEY: Final = "AIzaNobodysKey-0123456789"
MOMENTS: Final = Moments()
ENTRY: Final = {"command": "/opt/bin/gemini-batch-mcp", "args": ["--sandbox"], "env": {"GEMINI_BATCH_ROOTS": "/data"}}
#: By host, where its file is below the home directory, and how the entry gets the key.
FILES: Final[dict[str, tuple[str, Any]]] = {
    "claude-desktop": (".config/Claude/claude_desktop_config.json", None),
    "claude-code": (".claude.json", "${GEMINI_API_KEY}"),
    "vscode": (".config/Code/User/mcp.json", "${input:gemini-api-key}"),
    "cursor": (".cursor/mcp.json", "${env:GEMINI_API_KEY}"),
    "codex": (".codex/config.toml", ["GEMINI_API_KEY"]),
    "gemini-cli": (".gemini/settings.json", "$GEMINI_API_KEY"),
    "antigravity": (".gemini/antigravity/mcp_config.json", None),
}
#: What people and hosts have written into such files.
JSON_FILES: Final = {
    "another server": '{\n  "mcpServers": {\n    "f": {"command": "npx", "args": ["-y", "// no comment"]}\n  }\n}\n',
    "settings below": (
        '{\n    "mcpServers": {\n        "a": {\n            "command": "b"\n        }\n    },\n    "theme": "dark"\n}'
    ),
    "no servers": '{\n\t"theme": "dark",\n\t"sizes": [1, 2]\n}\n',
    "comments and commas": (
        '// mine\n{\n  /* servers */ "mcpServers": {\n    "a": {"command": "b",}, // the first, "quoted"\n'
        "    // nothing yet\n  },\n"
        '  "x": "/* text */", // end\n}\n// last\n'
    ),
    "Windows": '\ufeff{\r\n  "mcpServers": {\r\n    "a": {"command": "b"} // c\r\n  }\r\n}\r\n',
    "one line": '{"mcpServers":{"a":{"command":"b"}},"n":12345678901234567890.5e3}',
    "empty servers": '{\n  "mcpServers": {}\n}\n',
    "a comment only": '{\n  "mcpServers": {\n    // add servers here\n  }\n}',
    "empty object": "{}",
    "no bytes": "",
    "spaces": "\n\n",
    "an old entry": '{\n  "mcpServers": {\n    "gemini-batch": {"command": "old"}, // by hand\n    "z": {}\n  }\n}\n',
    "a name twice": '{"mcpServers": {"a": {}}, "mcpServers": {"b": {"command": "é \\u00e9"}}}',
}
TOML_FILES: Final = {
    "another server": (
        'model = "o5"  # mine\n\n[mcp_servers.files]\ncommand = "npx"\nargs = ["-y"]\n\n[tui]\ntheme = "dark"\n'
    ),
    "no servers": '# nothing\nmodel="o5"\n[a.b]\nc=1\n',
    "inline": 'mcp_servers = { files = { command = "npx" } }\n',
    "dotted": 'mcp_servers.files.command = "npx"\n',
    "quoted": '["mcp_servers"."files"]\ncommand = \'npx\'\r\n',
    "no bytes": "",
}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    directory = tmp_path / "user"
    for host, (file, _) in FILES.items():
        assert host in HOSTS
        (directory / file).parent.mkdir(parents=True, exist_ok=True)
    return directory


def test_each_host_gets_an_entry_in_its_own_form_that_names_the_key_and_holds_none(run: Run, home: Path) -> None:
    env = {"HOME": str(home), "GEMINI_API_KEY": KEY}
    for host, (name, key) in FILES.items():
        done = run("install", host, "--no-start", env=env, sandbox=False)
        assert done.returncode == 0, done.stderr
        text = (home / name).read_text(encoding="utf-8")
        assert KEY not in text + done.stdout + done.stderr
        said = tomllib.loads(text) if host == "codex" else json.loads(text)
        entry = said[HOSTS[host].path[0]]["gemini-batch"]
        assert Path(entry["command"]).name == "gemini-batch-mcp"
        assert entry["env"]["GEMINI_BATCH_ROOTS"]
        assert (entry.get("env_vars") if host == "codex" else entry["env"].get("GEMINI_API_KEY")) == key
        assert ("--copy-key" in done.stdout) == (key is None)
    listed = run("install", env=env, sandbox=False).stdout
    assert listed.count("has our entry") == len(HOSTS)
    for host, (name, _) in FILES.items():
        assert run("install", host, "--undo", env=env, sandbox=False).returncode == 0
        assert not (home / name).exists()


def test_what_was_written_is_started_as_the_host_starts_it_and_a_failure_is_told_with_the_way_back(
    run: Run, home: Path
) -> None:
    env = {"HOME": str(home)}
    done = run("install", "cursor", env=env)
    assert re.search(r"answers and offers \d+ tools", done.stdout), done.stderr
    checks = json.loads(run("doctor", "--json", env=env).stdout)["checks"]
    assert [(check["ok"], check["finding"][:16]) for check in checks if check["name"] == "host"] == [
        (True, "Cursor starts it")
    ]
    file = home / FILES["cursor"][0]
    file.write_text(file.read_text().replace("bin/gemini-batch-mcp", "bin/gone"))
    broken = run("doctor", env=env)
    assert broken.returncode == 1
    assert "install cursor corrects the entry" in broken.stdout
    # Named by the key itself where the host knows no variables, and only then.
    copied = run(
        "install", "claude-desktop", "--copy-key", "--no-start", env=env | {"GEMINI_API_KEY": KEY}, sandbox=False
    )
    file = home / FILES["claude-desktop"][0]
    assert json.loads(file.read_text())["mcpServers"]["gemini-batch"]["env"]["GEMINI_API_KEY"] == KEY
    assert KEY not in copied.stdout
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["/nowhere/gemini-batch-mcp"], "is not there"),
        (["sh", "-c", "echo wrong version >&2"], "wrong version"),
        (["true"], "ended without an answer"),
    ],
)
async def test_a_command_that_is_no_server_is_told_with_what_it_said(command: list[str], said: str) -> None:
    trial = await trying.start({"command": command[0], "args": command[1:]}, {})
    assert trial.tools == 0
    assert said in trial.failure


@pytest.mark.parametrize("name", [*JSON_FILES, *(f"TOML {name}" for name in TOML_FILES)])
def test_a_file_keeps_every_byte_that_is_not_ours_and_gets_all_of_them_back(tmp_path: Path, name: str) -> None:
    is_toml = name.startswith("TOML ")
    host = HOSTS["codex" if is_toml else "cursor"]
    before = (TOML_FILES[name.removeprefix("TOML ")] if is_toml else JSON_FILES[name]).encode()
    file = tmp_path / "configuration"
    file.write_bytes(before)
    preview = configuration.install(host, file, ENTRY, dry_run=True)
    assert preview.changes
    assert file.read_bytes() == before
    change = configuration.install(host, file, ENTRY, dry_run=False)
    assert change.difference == preview.difference
    assert change.backup is not None
    assert change.backup.read_bytes() == before
    assert configuration.entry_of(host, file) == ENTRY
    now = file.read_bytes()
    if name != "an old entry":
        rest = iter(now)
        assert all(byte in rest for byte in before), "something was taken away"
    assert not configuration.install(host, file, ENTRY, dry_run=False).changes
    assert file.read_bytes() == now
    # Given again with other directories, and taken back: as before the first time.
    other = ENTRY | {"env": {"GEMINI_BATCH_ROOTS": "/elsewhere"}}
    configuration.install(host, file, other, dry_run=False)
    assert configuration.entry_of(host, file) == other
    configuration.undo(host, file, dry_run=False)
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["configuration"]


@pytest.mark.parametrize("name", ["another server", "comments and commas", "one line", "Windows"])
def test_what_the_host_wrote_since_stays_when_the_entry_is_taken_out(tmp_path: Path, name: str) -> None:
    file = tmp_path / "mcp.json"
    file.write_bytes(JSON_FILES[name].encode())
    host = HOSTS["cursor"]
    before = configuration._parsed(host, file, JSON_FILES[name].removeprefix("\ufeff"))
    configuration.install(host, file, ENTRY, dry_run=False)
    text = file.read_bytes().decode()
    place = text.rindex("}")
    file.write_bytes(
        f'{text[:place].rstrip().rstrip(",")}, "since": 1}}'.encode() if name == "one line" else text.encode()
    )
    if name != "one line":
        configuration.install(HOSTS["claude-desktop"], file, ENTRY | {"args": []}, dry_run=False)
    configuration.undo(host, file, dry_run=False)
    after = configuration._parsed(host, file, file.read_text(encoding="utf-8-sig"))
    assert after == before | ({"since": 1} if name == "one line" else {})


def test_an_input_of_vs_code_is_added_once_beside_those_that_are_there(tmp_path: Path) -> None:
    file = tmp_path / "mcp.json"
    before = (
        b'{\n\t// asked for once\n\t"inputs": [\n'
        b'\t\t{ "id": "token", "type": "promptString" },\n\t],\n\t"servers": {}\n}\n'
    )
    file.write_bytes(before)
    host = HOSTS["vscode"]
    entry = host.entry(Launch("/opt/gemini-batch-mcp", (), ()), "GEMINI_API_KEY")
    for arguments in (["--sandbox"], []):
        configuration.install(host, file, entry | {"args": arguments}, dry_run=False)
    text = file.read_text()
    assert text.count("gemini-api-key") == 2
    assert "// asked for once" in text
    file.write_text(text.replace("asked for once", "asked for"))
    configuration.undo(host, file, dry_run=False)
    assert file.read_bytes() == before.replace(b" once", b"")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"mcpServers": {', "cannot be read as JSON"),
        (b'{"mcpServers": []}', "mcpServers is not an object"),
        (b'["a"]', "cannot be read as JSON"),
        (b'{"a": "\xff"}', "is not UTF-8"),
        (b"[" * 100_000, "cannot be read as JSON"),
    ],
)
def test_a_file_that_cannot_be_understood_is_left_alone_and_named(
    run: Run, home: Path, content: bytes, said: str
) -> None:
    file = home / FILES["cursor"][0]
    file.write_bytes(content)
    done = run("install", "cursor", "--no-start", env={"HOME": str(home)})
    assert done.returncode in (1, 2)
    assert said in done.stderr
    assert str(file) in done.stderr
    assert file.read_bytes() == content
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_a_link_is_followed_and_kept_as_people_have_their_settings_elsewhere(tmp_path: Path) -> None:
    real, link = tmp_path / "dotfiles.json", tmp_path / "mcp.json"
    real.write_text('{"mcpServers": {}}')
    real.chmod(0o644)
    link.symlink_to(real)
    configuration.install(HOSTS["cursor"], link, ENTRY, dry_run=False)
    assert link.is_symlink()
    assert configuration.entry_of(HOSTS["cursor"], real) == ENTRY
    assert stat.S_IMODE(real.stat().st_mode) == 0o644


def test_a_file_that_is_read_only_is_left_alone_and_for_root_gets_the_entry_and_stays_read_only(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    before = TOML_FILES["another server"].encode()
    file.write_bytes(before)
    file.chmod(0o444)
    if not os.access(file, os.W_OK):
        with pytest.raises(StorageError, match="read-only"):
            configuration.install(HOSTS["codex"], file, ENTRY, dry_run=False)
        assert file.read_bytes() == before
        return
    configuration.install(HOSTS["codex"], file, ENTRY, dry_run=False)
    assert configuration.entry_of(HOSTS["codex"], file) == ENTRY
    assert stat.S_IMODE(file.stat().st_mode) == 0o444
    configuration.undo(HOSTS["codex"], file, dry_run=False)
    assert file.read_bytes() == before
    assert stat.S_IMODE(file.stat().st_mode) == 0o444


def test_a_host_that_writes_its_file_meanwhile_loses_nothing(tmp_path: Path) -> None:
    """At every moment before the one at which the finished draft takes the file's place."""
    host = HOSTS["claude-code"]

    def visits(moment: int) -> int:
        file = tmp_path / f"{moment}" / "claude.json"
        file.parent.mkdir()
        file.write_text('{"mcpServers": {}, "visits": 1}')
        with MOMENTS.at(moment, "claude.json.", lambda: file.write_text('{"mcpServers": {}, "visits": 2}')):
            configuration.install(host, file, ENTRY, dry_run=False)
        said = json.loads(file.read_text())
        assert said["mcpServers"] == {"gemini-batch": ENTRY}
        return int(said["visits"])

    assert visits(0) == 1
    count = MOMENTS.count
    assert count > 5
    # The last two are the renaming itself, and looking whether a draft is left.
    assert [visits(moment) for moment in range(1, count - 1)] == [2] * (count - 2)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
NOISE = st.sampled_from(["", " ", "\n", "\r\n\t", '// , } "\n', "/* { \n */", "\n  /**/ "])


@st.composite
def commented(draw: st.DrawFn, value: Any) -> str:
    """JSON of a value with comments, line ends and commas at the end wherever they may stand."""
    noise = draw(NOISE)
    if isinstance(value, dict | list) and value:
        parts = (
            [f"{json.dumps(name)}{draw(NOISE)}:{draw(commented(inner))}" for name, inner in value.items()]
            if isinstance(value, dict)
            else [draw(commented(inner)) for inner in value]
        )
        end = "," if draw(st.booleans()) else ""
        body = ",".join(f"{draw(NOISE)}{part}" for part in parts) + end + draw(NOISE)
        return noise + (f"{{{body}}}" if isinstance(value, dict) else f"[{body}]") + draw(NOISE)
    return noise + json.dumps(value, ensure_ascii=draw(st.booleans())) + draw(NOISE)


@given(st.data())
def test_whatever_a_file_holds_one_entry_comes_and_goes_and_the_rest_says_the_same(data: st.DataObject) -> None:
    servers = data.draw(st.dictionaries(st.text(max_size=5), VALUES, max_size=3))
    value = data.draw(st.dictionaries(st.text(max_size=5), VALUES, max_size=3)) | {"mcpServers": servers}
    text = data.draw(commented(value))
    path = ("mcpServers", "gemini-batch")
    assert _jsonc.parsed(text) == value
    added = _jsonc.with_member(text, path, ENTRY)
    assert _jsonc.parsed(added) == value | {"mcpServers": servers | {"gemini-batch": ENTRY}}
    assert _jsonc.parsed(_jsonc.without_member(added, path)) == value
