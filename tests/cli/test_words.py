"""What the command line says and asks: true, in its own words, and never a traceback."""

from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from gemini_batch_mcp.batches.opening import LazyDesk, lazy_desk
from gemini_batch_mcp.cli import main as cli
from gemini_batch_mcp.cli.console import follow, show_placement
from gemini_batch_mcp.domain import Order
from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.sandbox.config import ByTime, SandboxConfig
from gemini_batch_mcp.settings import Settings
from support.conversation import Run, desk_of, ended, line, request_file, write_lines


def test_a_retry_says_how_many_rows_it_sends_and_a_delete_how_to_agree(run: Run, data: Path) -> None:
    source = request_file(data, 5, mark=" [[sandbox:error:13]]")
    batch = run("create-batch", source).stdout.strip()
    run("check-status", batch, "-w")
    assert "$" in run("get-results", batch).stdout

    again = run("retry-failed", batch, "--include", "failed")
    assert again.returncode == 0, again.stderr
    assert again.stderr.startswith("1 request resent.")

    refused = run("delete", batch)
    assert refused.returncode == 1
    assert "Nothing was deleted." in refused.stderr
    assert "--yes" in refused.stderr
    assert "confirm=true" not in refused.stderr


def test_what_mends_many_rows_is_said_once(run: Run, data: Path) -> None:
    rows = [f"{number // 2},text {number}" for number in range(12)]
    (data / "reviews.csv").write_text("id,text\n" + "\n".join(rows) + "\n", encoding="utf-8")
    done = run("preview", "reviews.csv", "--prompt", "Mood: {{text}}", "--key-column", "id")
    assert done.returncode == 1
    told = done.stdout.splitlines()
    assert [line.partition(": Row ")[0] for line in told] == [f"key '{number}'" for number in range(6)]
    assert told[0].endswith("the same as that of row 1.")
    assert told[5].endswith("the same as that of row 11. Choose a column of unique values.")


@pytest.mark.anyio
async def test_rows_that_are_being_sent_again_are_not_sent_once_more(
    settings: Settings, sandbox: Sandbox, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With jobs that move on command: those of a command's own sandbox may have ended before the second command."""
    async with desk_of(settings, sandbox) as desk:
        batch = await ended(desk, sandbox, request_file(data, 5, mark=" [[sandbox:error:13]]"))
        for said in ("1 request resent. ", "1 request already being resent; nothing new was submitted. "):
            show_placement(await desk.retry(batch, ()))
            shown = capsys.readouterr()
            assert shown.err.startswith(said)
            assert shown.out == f"{batch}\n"
    assert sandbox.creates == 2


def test_whoever_says_yes_agrees_to_what_the_order_costs_now(run: Run, data: Path) -> None:
    asking = {"GEMINI_BATCH_CONFIRM_ABOVE_USD": "0"}
    for rows in (3, 30):
        done = run("create-batch", request_file(data, rows), "--yes", env=asking)
        assert done.returncode == 0, done.stderr
        assert f"{rows} requests ordered" in done.stderr


def test_an_error_that_nobody_foresaw_is_a_sentence_without_its_text(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def broken(self: LazyDesk) -> None:
        raise RuntimeError("secret text")

    monkeypatch.setattr(LazyDesk, "get", broken)
    monkeypatch.setattr("sys.argv", ["gemini-batch-mcp", "--sandbox", "list-jobs"])
    monkeypatch.setenv("GEMINI_BATCH_HOME", str(settings.home))
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr().err
    assert ended.value.code == 1
    assert "RuntimeError in broken" in said
    assert "secret" not in said
    assert "Traceback" not in said


@pytest.mark.anyio
async def test_whoever_waits_for_a_batch_on_the_command_line_submits_what_waits_here(
    tmp_path: Path, settings: Settings, data: Path
) -> None:
    source = write_lines(data / "large.jsonl", [line(f"k{n}", "word " * 100) for n in range(40)])
    limited = replace(settings, max_enqueued_tokens=2000)
    with Sandbox(tmp_path / "timed", SandboxConfig(pace=ByTime(0.1))) as service:
        async with lazy_desk(limited, service.transport) as lazy:
            placed = await (await lazy.get()).place_order(Order(source=source))
        count = len(placed.status.batch.jobs)
        assert (service.creates, count > 2) == (1, True)
        # Another command, as if the first process had died: nobody else is there to submit the other jobs.
        async with lazy_desk(limited, service.transport) as lazy:
            with anyio.fail_after(60):
                status = await follow(await lazy.get(), placed.status.batch.id)
        assert status.done
        assert service.creates == count


@pytest.mark.parametrize(
    ("variable", "value", "code", "sentence"),
    [("GEMINI_BATCH_HOME", "/proc/nowhere", 1, "cannot be used"), ("GEMINI_BATCH_MAX_FILE_BYTES", "0.1", 0, "3 (")],
)
def test_settings_that_make_no_sense_end_in_a_sentence(
    run: Run, data: Path, variable: str, value: str, code: int, sentence: str
) -> None:
    done = run("preview", request_file(data), env={variable: value})
    assert done.returncode == code
    assert sentence in done.stdout + done.stderr
    assert "foreseen" not in done.stderr
