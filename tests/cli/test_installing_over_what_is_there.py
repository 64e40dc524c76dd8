"""`install` in files that people write in, too: what they added stays, what they had comes back, no secret is shown."""

import json
import os
import stat
import tomllib
from pathlib import Path
from typing import Any, Final

import pytest

from gemini_batch_mcp.cli.hosts import configuration
from gemini_batch_mcp.cli.hosts.known import HOSTS
from gemini_batch_mcp.errors import StorageError
from support.conversation import Run

KEY: Final = "AIzaNobodysKey-0123456789"
ENTRY: Final = {"command": "/opt/bin/gemini-batch-mcp", "args": [], "env": {"GEMINI_BATCH_ROOTS": "/data"}}
BACKUP: Final = ".before-gemini-batch"
THEIRS: Final = (
    '{\n  "mcpServers": {\n    "gemini-batch": {\n      // by hand\n'
    '      "command": "uvx", "args": ["gemini-batch-mcp"]\n    },\n'
    '    "z": {"command": "npx"}\n  },\n  "theme": "dark"\n}\n'
)
THEIRS_IN_TOML: Final = (
    'model = "o5"\n\n[mcp_servers.gemini-batch]\ncommand = "uvx" # by hand\nargs = ["gemini-batch-mcp"]\n\n'
    '# of the terminal\n[tui]\ntheme = "dark"\n'
)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    directory = tmp_path / "user"
    for name in (".cursor", ".codex", ".gemini/antigravity", ".config/Claude", ".config/Code/User"):
        (directory / name).mkdir(parents=True)
    return directory


def _file(home: Path, host: str) -> Path:
    return HOSTS[host].file("linux", home, {})


def _entry(home: Path, host: str) -> dict[str, Any]:
    text = _file(home, host).read_text(encoding="utf-8")
    said = tomllib.loads(text) if host == "codex" else json.loads(text)
    entry: dict[str, Any] = said[HOSTS[host].path[0]]["gemini-batch"]
    return entry


@pytest.mark.parametrize(("host", "theirs"), [("cursor", THEIRS), ("codex", THEIRS_IN_TOML)])
@pytest.mark.parametrize("again", [False, True])
def test_an_entry_of_the_user_comes_back_letter_by_letter_where_the_file_was_edited_since(
    run: Run, home: Path, host: str, theirs: str, again: bool
) -> None:
    env = {"HOME": str(home)}
    file = _file(home, host)
    file.write_text(theirs)
    assert run("install", host, "--no-start", env=env).returncode == 0
    installed = file.read_text()
    assert "by hand" in installed
    assert '"uvx"' not in installed
    file.write_text(installed.replace("dark", "light"))
    if again:
        assert run("install", host, "--no-start", "--root", str(home / ".cursor"), env=env).returncode == 0
    assert run("install", host, "--undo", env=env).returncode == 0
    assert file.read_text() == theirs.replace("dark", "light")
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_a_copy_that_nothing_can_be_put_back_from_is_left_where_it_is(run: Run, home: Path) -> None:
    env = {"HOME": str(home)}
    file = _file(home, "cursor")
    file.write_text(THEIRS.replace("// by hand", ""))
    run("install", "cursor", "--no-start", env=env)
    copy = file.with_name(file.name + BACKUP)
    copy.write_text("{")
    assert run("install", "cursor", "--undo", env=env).returncode == 0
    assert json.loads(file.read_text())["mcpServers"] == {"z": {"command": "npx"}}
    assert copy.read_text() == "{"


def test_an_input_of_vs_code_that_was_there_before_stays_with_the_entry_that_asks_for_it(run: Run, home: Path) -> None:
    env = {"HOME": str(home)}
    file = _file(home, "vscode")
    run("install", "vscode", "--no-start", env=env, sandbox=False)
    before = file.read_text().replace("{", '{ "a": 1,', 1)
    file.write_text(before)
    run("install", "vscode", "--no-start", "--root", str(home), env=env, sandbox=False)
    file.write_text(file.read_text().replace('"a": 1', '"a": 2'))
    assert run("install", "vscode", "--undo", env=env, sandbox=False).returncode == 0
    assert file.read_text() == before.replace('"a": 1', '"a": 2')


def test_a_second_install_keeps_whatever_was_added_to_the_entry(run: Run, home: Path) -> None:
    env = {"HOME": str(home), "GEMINI_API_KEY": "another-key-of-the-shell"}
    file = _file(home, "cursor")
    added = {
        "GEMINI_BATCH_ROOTS": "/theirs",
        "GEMINI_API_KEY": KEY,
        "GEMINI_BATCH_MAX_COST_USD": "5",
    }
    theirs = {
        "command": "/old/gemini-batch-mcp",
        "args": ["--sandbox"],
        "env": added,
        "disabled": True,
        "alwaysAllow": ["a"],
    }
    file.write_text(json.dumps({"mcpServers": {"gemini-batch": theirs}}, indent=2))
    done = run("install", "cursor", "--no-start", env=env, sandbox=False)
    entry = _entry(home, "cursor")
    assert entry == theirs | {"command": entry["command"]}
    assert entry["command"] != "/old/gemini-batch-mcp"
    assert "keeps --sandbox" in done.stdout
    assert "keeps the key" in done.stdout
    # What is asked for now is set.
    run("install", "cursor", "--no-start", "--root", str(home), "--copy-key", env=env, sandbox=False)
    assert _entry(home, "cursor")["env"] == added | {
        "GEMINI_BATCH_ROOTS": str(home),
        "GEMINI_API_KEY": "another-key-of-the-shell",
    }


def test_a_second_install_keeps_what_was_added_in_toml_with_its_comments(run: Run, home: Path) -> None:
    env = {"HOME": str(home)}
    file = _file(home, "codex")
    run("install", "codex", "--no-start", env=env, sandbox=False)
    first = _entry(home, "codex")
    text = file.read_text().replace("tool_timeout_sec = 120", "tool_timeout_sec = 600 # slow here\nenabled = false")
    text = text.replace('env_vars = ["GEMINI_API_KEY"]', 'env_vars = ["GEMINI_API_KEY", "MINE"]')
    text = text.replace(first["command"], "/old/gemini-batch-mcp") + 'GEMINI_BATCH_MAX_COST_USD = "5"\n'
    file.write_text(text)
    done = run("install", "codex", "--no-start", env=env, sandbox=False)
    assert done.returncode == 0, done.stderr
    assert _entry(home, "codex") == first | {
        "tool_timeout_sec": 600,
        "enabled": False,
        "env_vars": ["GEMINI_API_KEY", "MINE"],
        "env": first["env"] | {"GEMINI_BATCH_MAX_COST_USD": "5"},
    }
    assert "# slow here" in file.read_text()


def test_an_entry_that_names_an_address_or_another_hosts_variable_is_corrected(run: Run, home: Path) -> None:
    entry = {"type": "http", "url": "http://127.0.0.1:1", "env": {"GEMINI_API_KEY": "${GEMINI_API_KEY}"}}
    _file(home, "cursor").write_text(json.dumps({"mcpServers": {"gemini-batch": entry}}))
    run("install", "cursor", "--no-start", env={"HOME": str(home)}, sandbox=False)
    assert _entry(home, "cursor").keys() == {"command", "args", "env"}
    assert _entry(home, "cursor")["env"]["GEMINI_API_KEY"] == "${env:GEMINI_API_KEY}"


@pytest.mark.parametrize("indent", [None, 2])
def test_no_secret_of_any_server_is_shown_and_the_names_are(run: Run, home: Path, indent: int | None) -> None:
    env = {"HOME": str(home)}
    file = _file(home, "antigravity")
    secrets = ["ghp_0123456789abcdef", "s3cret", 'quo"ted\u00e9-secret', "Bearer-of-nothing", "in-an-argument", "40959"]
    servers = {
        "a": {"command": "npx", "env": {"GITHUB_TOKEN": secrets[0], "SHORT": secrets[1], "PIN": int(secrets[5])}},
        "b": {
            "headers": {"X-Mine": secrets[2]},
            "oauth": {"clientSecret": secrets[3]},
            "args": ["--token", secrets[4]],
        },
    }
    file.write_text(json.dumps({"mcpServers": servers}, indent=indent))
    with_key = env | {"GEMINI_API_KEY": KEY}
    said = run("install", "antigravity", "--copy-key", "--no-start", env=with_key, sandbox=False).stdout
    other = str(home / ".codex")
    for arguments in (["--root", other, "--no-start"], ["--undo", "--dry-run"], ["--undo"]):
        said += run("install", "antigravity", *arguments, env=env, sandbox=False).stdout
    for secret in (*secrets, json.dumps(secrets[2])[1:-1], KEY):
        assert secret not in said
    assert '"GEMINI_API_KEY": "[secret]"' in said
    assert "/user/.codex" in said
    assert "gemini-batch-mcp" in said
    if indent is None:
        assert all(name in said for name in ('"GITHUB_TOKEN": "[secret]"', '"X-Mine"', '"clientSecret"', '"--token"'))


def test_no_secret_of_toml_is_shown(run: Run, home: Path) -> None:
    text = (
        "[mcp_servers.a]\ncommand = 'npx'\nbearer_token = 'first-of-all'\n"
        'env = { A = \'one-line\', "B" = """two\nlines-of-it""" }\n'
    )
    _file(home, "codex").write_text(text)
    said = run("install", "codex", "--dry-run", env={"HOME": str(home)}, sandbox=False).stdout
    assert "lines-of-it" not in said
    assert "[secret]" in said
    _file(home, "codex").write_text(text.replace("\nlines-of-it", ""))
    said = run("install", "codex", "--dry-run", env={"HOME": str(home)}, sandbox=False).stdout
    assert "one-line" not in said
    assert "first-of-all" not in said
    assert "bearer_token = '[secret]'" in said


def test_a_failed_install_leaves_nothing_and_no_copy_stands_in_the_way_of_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, file = HOSTS["cursor"], tmp_path / "mcp.json"
    file.write_text("{}")
    file.chmod(0o444)
    with monkeypatch.context() as patched:
        # As it is for everybody but root.
        patched.setattr(os, "access", lambda path, _: bool(stat.S_IMODE(Path(path).stat().st_mode) & 0o200))
        with pytest.raises(StorageError, match="read-only"):
            configuration.install(host, file, ENTRY, dry_run=False)
        assert [path.name for path in tmp_path.iterdir()] == ["mcp.json"]
        copy = tmp_path / f"mcp.json{BACKUP}"
        copy.write_text("{}")
        copy.chmod(0o444)
        file.chmod(0o644)
        assert configuration.install(host, file, ENTRY, dry_run=False).backup == copy
    assert configuration.entry_of(host, file) == ENTRY


def test_a_copy_goes_with_a_change_that_fails_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mcp.json"
    file.write_text("{}")
    rename = Path.replace

    def refused(self: Path, target: Path) -> Path:
        if target == file:
            raise PermissionError(1, "Operation not permitted")
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", refused)
    with pytest.raises(StorageError, match="Operation not permitted"):
        configuration.install(HOSTS["cursor"], file, ENTRY, dry_run=False)
    assert [path.name for path in tmp_path.iterdir()] == ["mcp.json"]


@pytest.mark.parametrize("text", ["[[mcp_servers]]\na = 1\n", 'mcp_servers = "x"\n', "mcp_servers = []\n"])
def test_servers_of_codex_that_are_no_table_are_told_in_a_sentence(run: Run, home: Path, text: str) -> None:
    file = _file(home, "codex")
    file.write_text(text)
    for flag in ("--no-start", "--undo"):
        done = run("install", "codex", flag, env={"HOME": str(home)})
        assert done.returncode == 2
        assert f"{file} cannot be read as TOML: mcp_servers is not a table." in done.stderr
    assert file.read_text() == text


def test_a_comment_on_the_next_table_stays_when_the_entry_is_taken_out(run: Run, home: Path) -> None:
    env, file = {"HOME": str(home)}, _file(home, "codex")
    file.write_text('model = "o5"\n')
    run("install", "codex", "--no-start", env=env)
    file.write_text(f'{file.read_text()}\n# of the terminal\n[tui]\ntheme = "dark"\n')
    assert run("install", "codex", "--undo", env=env).returncode == 0
    assert file.read_text().split("\n", 1)[1].lstrip() == '# of the terminal\n[tui]\ntheme = "dark"\n'


def test_inputs_of_any_form_are_left_alone(run: Run, home: Path) -> None:
    for inputs in (None, 5, {"a": 1}):
        _file(home, "cursor").write_text(json.dumps({"inputs": inputs}))
        assert run("install", "cursor", "--no-start", env={"HOME": str(home)}).returncode == 0
        assert json.loads(_file(home, "cursor").read_text())["inputs"] == inputs


@pytest.mark.parametrize("kind", ["circle", "pipe", "directory", "broken"])
def test_what_is_no_file_is_named_and_hides_no_other_host_from_the_list(run: Run, home: Path, kind: str) -> None:
    file, env = _file(home, "cursor"), {"HOME": str(home)}
    if kind == "circle":
        file.symlink_to(file)
    elif kind == "pipe":
        os.mkfifo(file)
    elif kind == "directory":
        file.mkdir()
    else:
        file.write_text("{")
    for flag in ("--no-start", "--undo"):
        done = run("install", "cursor", flag, env=env)
        assert done.returncode in (1, 2)
        assert f"{file} cannot be read" in done.stderr
        assert "bug" not in done.stderr
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    listed = run("install", env=env)
    assert listed.returncode == 0
    rows = listed.stdout.splitlines()
    assert [row.split()[0] for row in rows[:-1]] == list(HOSTS)
    assert [str(file) in row for row in rows if "cannot be looked at" in row] == [True]


def test_a_key_that_nobody_filled_in_is_not_copied(run: Run, home: Path) -> None:
    env = {"HOME": str(home), "GEMINI_API_KEY": "${GEMINI_API_KEY}"}
    done = run("install", "claude-desktop", "--copy-key", "--no-start", env=env, sandbox=False)
    assert done.returncode == 2
    assert "GEMINI_API_KEY holds ${GEMINI_API_KEY}" in done.stderr
    assert not _file(home, "claude-desktop").exists()


def test_claude_code_is_found_where_its_variable_says(run: Run, home: Path) -> None:
    directory = home / "claude"
    directory.mkdir()
    env = {"HOME": str(home), "CLAUDE_CONFIG_DIR": str(directory)}
    assert run("install", "claude-code", "--no-start", env=env).returncode == 0
    assert "gemini-batch" in json.loads((directory / ".claude.json").read_text())["mcpServers"]
    assert not (home / ".claude.json").exists()


def test_what_is_undone_is_told_as_it_was_done(run: Run, home: Path) -> None:
    env, file = {"HOME": str(home)}, _file(home, "cursor")
    run("install", "cursor", "--no-start", env=env)
    assert f"{file} is removed" in run("install", "cursor", "--undo", "--dry-run", env=env).stdout
    gone = run("install", "cursor", "--undo", env=env).stdout
    assert f"Removed {file}" in gone
    assert "Turn it on" not in gone
    assert not file.exists()
    file.write_text("{}")
    run("install", "cursor", "--no-start", env=env)
    back = run("install", "cursor", "--undo", env=env).stdout
    assert f"Wrote {file}" in back
    assert "Turn it on" not in back
