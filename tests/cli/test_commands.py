"""The command line as a person uses it: real processes, real exit codes, results on stdout and the rest on stderr."""

import json
import os
import pty
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from gemini_batch_mcp import __version__
from gemini_batch_mcp.cli.main import commands
from gemini_batch_mcp.cli.session import Session
from gemini_batch_mcp.errors import ConfigurationError
from support.answers import read_page
from support.conversation import Run, line, process_env, request_file, write_lines
from support.extent import long

COMMANDS = [
    *("cancel", "check-status", "collect", "compare", "create-batch", "delete", "demo", "doctor", "get-results"),
    *("install", "list-jobs", "preview", "query", "report", "retry-failed", "sandbox", "serve", "spend", "try"),
]


def test_create_check_and_get_work_with_their_short_flags(run_at_port: Run, data: Path) -> None:
    request_file(data, 12, mark=" [[sandbox:blocked]]")
    created = run_at_port("create-batch", "reviews.jsonl", "-m", "gemini-3-flash-preview", "-n", "my reviews")
    assert created.returncode == 0, created.stderr
    batch = created.stdout.strip()
    assert batch.startswith("my-reviews-")

    status = run_at_port("check-status", batch, "-w")
    assert status.returncode == 0, status.stderr
    assert "JOB_STATE_SUCCEEDED" in status.stdout

    results = run_at_port("get-results", "my reviews", "-o", "answers.jsonl")
    assert results.returncode == 0, results.stderr
    assert "11 succeeded" in results.stdout
    assert "1 blocked" in results.stdout
    assert len((data / "answers.jsonl").read_text(encoding="utf-8").splitlines()) == 12

    failures = run_at_port("get-results", batch, "--view", "failures")
    assert "k2" in failures.stdout
    assert "k3" not in failures.stdout
    listed = run_at_port("list-jobs")
    assert batch in listed.stdout
    before = json.loads(run_at_port("spend", "--by", "batch", "--json").stdout)
    assert [group["name"] for group in before["groups"]] == [batch]
    assert run_at_port("delete", batch).returncode == 1
    assert run_at_port("delete", batch, "--yes").returncode == 0
    assert batch not in run_at_port("list-jobs").stdout
    after = json.loads(run_at_port("spend", "--by", "batch", "--json").stdout)
    assert after["groups"] == [before["groups"][0] | {"name": f"{batch} (deleted)"}]
    assert after["total"] == before["total"]
    assert 0 < after["total"]["wasted_usd"] < after["total"]["cost_usd"]


def test_the_sandbox_needs_no_key_that_a_host_has_left_as_it_stands_in_its_file(run: Run, data: Path) -> None:
    """Claude Desktop puts in a setting that the user has left empty as the bundle's manifest names it."""
    request_file(data)
    done = run("create-batch", "reviews.jsonl", env={"GEMINI_API_KEY": "${user_config.api_key}"})
    assert done.returncode == 0, done.stderr


@long
def test_pages_about_a_batch_and_a_comparison_show_what_was_answered(run_at_port: Run, data: Path) -> None:
    rows = (f"r{n},{('de', 'fr')[n % 2]},{('good', 'bad')[n % 3 == 0]},text {n}" for n in range(60))
    (data / "reviews.csv").write_text("\n".join(["id,country,truth,text", *rows]) + "\n", encoding="utf-8")
    schema = {"type": "object", "properties": {"label": {"enum": ["good", "bad"]}}, "required": ["label"]}
    (data / "schema.json").write_text(json.dumps(schema), encoding="utf-8")
    order = ("reviews.csv", "--prompt", "Mood? {{text}}", "--key-column", "id", "--schema", "schema.json")
    batch = run_at_port("create-batch", *order).stdout.strip()
    assert run_at_port("check-status", batch, "-w").returncode == 0

    said = run_at_port("compare", batch, "truth", "-o", "compared.html")
    assert "label: " in said.stdout and "compared.html" in said.stdout, said.stderr
    compared = read_page(data / "compared.html")
    equal = int(re.findall(r"label: (\d+) of 60 rows equal", said.stdout)[0])
    assert "Compared600 rows without" in compared.words
    assert f"Different{60 - equal}" in compared.words
    assert "ExpectedRows" in compared.words

    wrong = run_at_port("report", batch, "-o", "report.csv")
    assert (wrong.returncode, "End the name in .html; get-results saves" in wrong.stderr) == (2, True), wrong.stderr
    assert not (data / "report.csv").exists()
    assert run_at_port("report", batch, "-o", "report.html").returncode == 0
    report = read_page(data / "report.html")
    for words in ("Answers", "Fields of 60 OK rows.", "label by ", "out of: country, truth", "2 different answers"):
        assert words in report.words, words


@long
def test_a_terminal_shows_each_stage_with_what_is_done(tmp_path: Path, data: Path, at_port: dict[str, str]) -> None:
    ours, theirs = pty.openpty()
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "gemini_batch_mcp", "create-batch", request_file(data)],
            cwd=data,
            env=process_env(GEMINI_BATCH_HOME=str(tmp_path / "home"), TERM="xterm", COLUMNS="160", **at_port),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=theirs,
        )
        os.close(theirs)
        shown = b"".join(iter(partial(_read, ours), b"")).decode()
        out, _ = process.communicate(timeout=90)
    finally:
        os.close(ours)

    assert process.returncode == 0, shown
    assert re.fullmatch(rb"reviews-[a-z0-9]{6}\n", out)
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown)
    size = (data / "reviews.jsonl").stat().st_size
    assert re.search(r"Checking .* 3 lines", plain)
    assert re.search(rf"Uploading .* {size} bytes of {size} bytes", plain)


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65_536)
    except OSError:
        # Nobody writes to it any more.
        return b""


def test_progress_and_advice_stay_off_stdout_in_a_pipe(run: Run, data: Path) -> None:
    created = run("create-batch", request_file(data))
    assert created.stdout.count("\n") == 1
    assert "requests ordered" in created.stderr
    assert "\x1b[" not in created.stdout + created.stderr


def test_a_wrong_file_is_a_sentence_and_exit_code_one(run: Run, data: Path) -> None:
    source = write_lines(data / "wrong.jsonl", [line("a"), line("a")])
    done = run("create-batch", source)

    assert done.returncode == 1
    assert done.stdout == ""
    assert "line 2" in done.stderr
    assert "Traceback" not in done.stderr


def test_wrong_usage_is_exit_code_two(run: Run) -> None:
    assert run("no-such-command").returncode == 2
    assert run("create-batch").returncode == 2
    assert run("get-results", "x", "--limit", "0").returncode == 2
    http = run("serve", "--transport", "http", "--host", "0.0.0.0")
    assert http.returncode == 2
    assert "GEMINI_BATCH_HTTP_TOKEN is not set" in http.stderr


def test_without_a_key_a_command_says_what_to_set_and_fails(run: Run) -> None:
    done = run("list-jobs", sandbox=False)

    assert done.returncode == 1
    assert "GEMINI_API_KEY" in done.stderr
    assert "--sandbox" in done.stderr


def test_a_wrong_setting_is_named_and_fails(run: Run) -> None:
    done = run("list-jobs", env={"GEMINI_BATCH_POLL_SECONDS": "often"})

    assert done.returncode == 1
    assert "GEMINI_BATCH_POLL_SECONDS is 'often'" in done.stderr


def test_doctor_is_content_in_the_sandbox_and_not_without_a_key(run: Run) -> None:
    well = run("doctor", "--json")
    assert well.returncode == 0, well.stderr
    report = json.loads(well.stdout)
    assert report["ok"]
    # Two roots: the working directory, and the user's own directory inside the state directory.
    names = ["version", "key", "new fields", "spending", "state", "disk", "root", "root", "gemini", "model", "storage"]
    assert [check["name"] for check in report["checks"]] == [*names, "clock"]
    ill = run("doctor", sandbox=False)
    assert ill.returncode == 1
    assert "GEMINI_API_KEY" in ill.stdout


def test_cancelling_a_batch_says_where_it_stands(run: Run, data: Path) -> None:
    batch = run("create-batch", request_file(data), "-n", "stuck [[sandbox:job-stuck]]").stdout.strip()
    done = run("cancel", batch)

    assert done.returncode == 0, done.stderr
    assert "JOB_STATE_CANCEL" in done.stdout


def test_the_version_and_every_command_are_shown(run: Run, data: Path) -> None:
    """The version by a process that was started, not forked (`support.commands`); both say and do the same."""
    assert run("--version").stdout.strip().endswith(__version__)
    for arguments in (["--version"], ["create-batch"]):
        command = [sys.executable, "-m", "gemini_batch_mcp", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd=data, env=process_env(), check=False)
        forked = run(*arguments, sandbox=False)
        assert (done.returncode, done.stdout, done.stderr) == (forked.returncode, forked.stdout, forked.stderr)
    _, _, listed = run("--help").stdout.partition("Commands:\n")
    assert re.findall(r"^  (\S+) ", listed, re.MULTILINE) == COMMANDS


def test_a_user_without_a_home_directory_is_told_so_and_needs_none_for_the_state(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container that is run under a number without a name."""
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000)
    monkeypatch.chdir(data)
    with pytest.raises(ConfigurationError, match="HOME is not set"):
        Session({}, {}).settings()
    settings = Session({"GEMINI_BATCH_HOME": str(tmp_path)}, {}).settings()
    assert (settings.home, settings.roots) == (tmp_path, (data, tmp_path / "files"))
    for name in ("GEMINI_BATCH_HOME", "GEMINI_BATCH_ROOTS"):
        with pytest.raises(ConfigurationError, match=f"{name} .*~nobody-of-that-name.*relative"):
            Session({"GEMINI_BATCH_HOME": str(tmp_path), name: "~nobody-of-that-name/data"}, {}).settings()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_says_how_it_is_called_and_what_it_does(command: str) -> None:
    """In this process: a process for each of them would take longer to start than to say it."""
    shown = CliRunner().invoke(commands, [command, "--help"], prog_name="gemini-batch-mcp")

    assert shown.exit_code == 0
    usage, _, rest = shown.output.partition("\n\n")
    assert usage.startswith(f"Usage: gemini-batch-mcp {command} [OPTIONS]")
    assert rest.split("Options:")[0].strip().endswith("."), rest


def test_every_choice_is_taken_in_the_word_that_tools_take() -> None:
    choices = {
        (name, option.name): tuple(option.type.choices)
        for name, command in commands.commands.items()
        for option in command.params
        if isinstance(option.type, click.Choice)
    }
    assert choices["retry-failed", "include"] == ("failed", "missing", "blocked", "truncated", "empty")
    for words in choices.values():
        assert {type(word) for word in words} == {str}, words
        assert [word.lower() for word in words] == list(words)


def test_the_demo_ends_by_itself_and_shows_the_whole_conversation(run: Run, data: Path) -> None:
    # What lies under its file's name is somebody's.
    (data / "gemini-batch-demo").mkdir()
    (data / "mine.csv").write_text("precious", encoding="utf-8")
    (data / "gemini-batch-demo" / "reviews.csv").symlink_to(data / "mine.csv")
    done = run("demo", sandbox=False)

    assert done.returncode == 0, done.stderr
    for words in (
        "create_batch",
        "requests ordered as demo-reviews-",
        "reused=True",
        "JOB_STATE_SUCCEEDED",
        "missing",
        "blocked",
        "results.jsonl",
    ):
        assert words in done.stdout
    assert (data / "mine.csv").read_text(encoding="utf-8") == "precious"
    assert len((data / "gemini-batch-demo" / "results.jsonl").read_text(encoding="utf-8").splitlines()) == 40


def test_a_job_that_failed_makes_check_status_fail(run: Run, data: Path) -> None:
    batch = run("create-batch", request_file(data), "-n", "bad [[sandbox:job-failed]]").stdout.strip()
    done = run("check-status", batch, "-w")

    assert done.returncode == 1
    assert "JOB_STATE_FAILED" in done.stdout
    assert done.stderr.startswith(f"{batch} ended as JOB_STATE_FAILED.")


def test_a_batch_that_is_not_there_is_wrong_usage(run: Run) -> None:
    done = run("check-status", "nobody")

    assert done.returncode == 2
    assert "There is no batch or job 'nobody'" in done.stderr
