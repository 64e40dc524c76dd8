"""Jobs of the sandbox: what a create may say, quotas, how jobs move and end, and what a restart finds."""

from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import httpx2
import pytest

from gemini_batch_mcp.errors import UsageError
from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.sandbox.config import LIFETIME_SECONDS, ByReads, ByTime, OnCommand, RowFault, SandboxConfig
from gemini_batch_mcp.sandbox.state import CreateRecord
from support.services import (
    MODEL,
    Clock,
    create,
    create_from,
    download,
    download_lines,
    generate_lines,
    get_json,
    parse_lines,
    raw,
    start_upload,
    upload,
)

pytestmark = pytest.mark.anyio

METHOD = f"/v1beta/models/{MODEL}:batchGenerateContent"
REQUEST = {"contents": [{"parts": [{"text": "hi"}]}]}
ONE_INLINE = {"requests": {"requests": [{"request": REQUEST}]}}


async def state_of(http: httpx2.AsyncClient, name: str) -> str:
    return str((await get_json(http, name))["metadata"]["state"])


async def test_a_timed_job_waits_runs_and_succeeds_with_the_clock(tmp_path: Path) -> None:
    clock = Clock()
    config = SandboxConfig(pace=ByTime(100), clock_ns=clock, row_faults={RowFault.ERROR: 0.1})
    with Sandbox(tmp_path, config) as sandbox:
        async with raw(sandbox) as http:
            name = await create_from(http, generate_lines(100))
            clock.pass_seconds(9)
            assert await state_of(http, name) == "BATCH_STATE_PENDING"
            clock.pass_seconds(46)
            half = (await get_json(http, name))["metadata"]
            assert half["state"] == "BATCH_STATE_RUNNING"
            assert half["batchStats"] == {
                "requestCount": "100",
                "successfulRequestCount": "45",
                "failedRequestCount": "5",
                "pendingRequestCount": "50",
            }
            clock.pass_seconds(-54)
            assert await state_of(http, name) == "BATCH_STATE_RUNNING", "a clock that goes back un-starts nothing"
            clock.pass_seconds(500)
            operation = await get_json(http, name)
            assert operation["metadata"]["state"] == "BATCH_STATE_SUCCEEDED"
            assert operation["metadata"]["endTime"] == "2026-11-22T09:01:40.104882317Z"
            failed = [line for line in await download_lines(http, operation) if "error" in line]
            assert operation["metadata"]["batchStats"]["failedRequestCount"] == str(len(failed))


@pytest.mark.parametrize("pace", [ByTime(0), ByReads(0), ByReads(1)])
async def test_a_job_may_be_finished_by_the_first_read(tmp_path: Path, pace: ByTime | ByReads) -> None:
    with Sandbox(tmp_path, SandboxConfig(pace=pace)) as sandbox:
        async with raw(sandbox) as http:
            name = await create_from(http, generate_lines(1))
            assert await state_of(http, name) == "BATCH_STATE_SUCCEEDED"


async def test_reads_move_a_job_whether_by_get_or_by_list(tmp_path: Path) -> None:
    with Sandbox(tmp_path, SandboxConfig(pace=ByReads(3))) as sandbox:
        async with raw(sandbox) as http:
            name = await create_from(http, generate_lines(9))
            first = (await get_json(http, name))["metadata"]
            assert first["batchStats"]["successfulRequestCount"] == "3"
            (second,) = (await get_json(http, "batches"))["operations"]
            assert second["metadata"]["batchStats"]["successfulRequestCount"] == "6"
            assert await state_of(http, name) == "BATCH_STATE_SUCCEEDED"


async def test_a_job_on_command_moves_by_commands_only(sandbox: Sandbox) -> None:
    async with raw(sandbox) as http:
        name = await create_from(http, generate_lines(4))
        assert await state_of(http, name) == "BATCH_STATE_PENDING"
        assert sandbox.advance(name).state == "BATCH_STATE_RUNNING"
        assert await state_of(http, name) == "BATCH_STATE_RUNNING"
        assert sandbox.advance(name).state == "BATCH_STATE_SUCCEEDED"
        assert sandbox.advance(name) == sandbox.finish(name, "FAILED")
        assert await state_of(http, name) == "BATCH_STATE_SUCCEEDED"


async def test_a_state_that_nobody_knows_can_be_shown(sandbox: Sandbox) -> None:
    async with raw(sandbox) as http:
        name = await create_from(http, generate_lines(1))
        sandbox.set_state(name, "BATCH_STATE_SOMETHING_NEW")
        operation = await get_json(http, name)
        assert operation["metadata"]["state"] == "BATCH_STATE_SOMETHING_NEW"
        assert "done" not in operation
        with pytest.raises(UsageError, match="Use finish"):
            sandbox.set_state(name, "JOB_STATE_SUCCEEDED")
        sandbox.finish(name, "PARTIALLY_SUCCEEDED")
        operation = await get_json(http, name)
        assert operation["metadata"]["state"] == "BATCH_STATE_PARTIALLY_SUCCEEDED"
        assert operation["metadata"]["output"]["responsesFile"].startswith("files/batch-")


@pytest.mark.parametrize(("state", "code"), [("FAILED", 3), ("EXPIRED", 4), ("CANCELLED", 1)])
async def test_a_job_that_ends_badly_carries_an_error_and_no_output(sandbox: Sandbox, state: str, code: int) -> None:
    async with raw(sandbox) as http:
        name = await create_from(http, generate_lines(4))
        sandbox.finish(name, state)
        operation = await get_json(http, name)
        assert operation["done"] is True
        assert operation["error"]["code"] == code
        assert "response" not in operation
        assert "output" not in operation["metadata"]
        result_file = f"files/batch-{name.removeprefix('batches/')}"
        assert (await http.get(f"/v1beta/{result_file}:download?alt=media")).status_code == 404


async def test_a_cancel_takes_its_time_and_may_keep_answers(tmp_path: Path) -> None:
    clock = Clock()
    config = SandboxConfig(pace=ByTime(100), clock_ns=clock, cancel_seconds=5, keeps_cancelled_rows=True)
    with Sandbox(tmp_path, config) as sandbox:
        async with raw(sandbox) as http:
            name = await create_from(http, generate_lines(100))
            clock.pass_seconds(55)
            await get_json(http, name)
            assert (await http.post(f"/v1beta/{name}:cancel")).json() == {}
            clock.pass_seconds(4)
            assert (await http.post(f"/v1beta/{name}:cancel")).json() == {}
            assert await state_of(http, name) == "BATCH_STATE_RUNNING"
            clock.pass_seconds(1)
            operation = await get_json(http, name)
            assert operation["metadata"]["state"] == "BATCH_STATE_CANCELLED"
            assert operation["error"]["code"] == 1
            lines = await download_lines(http, operation)
            assert len(lines) == int(operation["metadata"]["batchStats"]["successfulRequestCount"]) == 54
            assert (await http.post(f"/v1beta/{name}:cancel")).status_code == 200
            assert await state_of(http, name) == "BATCH_STATE_CANCELLED"


async def test_a_job_that_ended_before_its_cancel_took_effect_has_succeeded(tmp_path: Path) -> None:
    clock = Clock()
    with Sandbox(tmp_path, SandboxConfig(pace=ByTime(10), clock_ns=clock, cancel_seconds=60)) as sandbox:
        async with raw(sandbox) as http:
            name = await create_from(http, generate_lines(1))
            await http.post(f"/v1beta/{name}:cancel")
            clock.pass_seconds(100)
            assert await state_of(http, name) == "BATCH_STATE_SUCCEEDED"


async def test_a_cancelled_job_on_command_ends_with_the_next_command(sandbox: Sandbox) -> None:
    async with raw(sandbox) as http:
        name = await create_from(http, generate_lines(1))
        await http.post(f"/v1beta/{name}:cancel")
        assert await state_of(http, name) == "BATCH_STATE_PENDING"
        assert sandbox.advance(name).state == "BATCH_STATE_CANCELLED"


async def test_a_job_that_is_not_done_in_48_hours_expires(tmp_path: Path) -> None:
    clock = Clock()
    with Sandbox(tmp_path, SandboxConfig(pace=OnCommand(), clock_ns=clock)) as sandbox:
        async with raw(sandbox) as http:
            name = await create_from(http, generate_lines(1))
            clock.pass_seconds(LIFETIME_SECONDS - 1)
            assert await state_of(http, name) == "BATCH_STATE_PENDING"
            clock.pass_seconds(1)
            assert await state_of(http, name) == "BATCH_STATE_EXPIRED"


@pytest.mark.parametrize(
    ("mark", "state"),
    [("job-failed", "FAILED"), ("job-expired", "EXPIRED"), ("job-stuck", "PENDING"), ("nothing", "SUCCEEDED")],
)
async def test_a_display_name_can_decide_how_a_job_ends(tmp_path: Path, mark: str, state: str) -> None:
    clock = Clock()
    with Sandbox(tmp_path, SandboxConfig(pace=ByTime(10), clock_ns=clock)) as sandbox:
        async with raw(sandbox) as http:
            name = await create_from(http, generate_lines(1), displayName=f"a [[sandbox:{mark}]]")
            clock.pass_seconds(3600)
            assert await state_of(http, name) == f"BATCH_STATE_{state}"


async def test_a_new_job_may_be_late_in_the_list(tmp_path: Path) -> None:
    clock = Clock()
    with Sandbox(tmp_path, SandboxConfig(pace=OnCommand(), clock_ns=clock, list_lag_seconds=5)) as sandbox:
        async with raw(sandbox) as http:
            name = await create_from(http, generate_lines(1))
            assert await get_json(http, "batches") == {}
            assert (await get_json(http, name))["name"] == name
            clock.pass_seconds(5)
            assert len((await get_json(http, "batches"))["operations"]) == 1


async def test_pages_stay_whole_while_jobs_come_and_go(sandbox: Sandbox) -> None:
    async with raw(sandbox) as http:
        file_name = await upload(http, generate_lines(1))
        names = [(await create(http, file_name))["name"] for _ in range(6)]
        page = await get_json(http, "batches?pageSize=3")
        await create(http, file_name)
        sandbox.forget_job(page["operations"][2]["name"])
        rest = await get_json(http, f"batches?pageSize=3&pageToken={page['nextPageToken']}")
        assert [one["name"] for one in page["operations"] + rest["operations"]] == names[::-1]
        assert "nextPageToken" not in rest


async def test_an_update_changes_what_its_mask_names(sandbox: Sandbox) -> None:
    async with raw(sandbox) as http:
        name = await create_from(http, generate_lines(1))
        path = f"/v1beta/{name}:updateGenerateContentBatch"
        body = {"displayName": "other", "priority": "-3"}
        reply = await http.patch(f"{path}?updateMask=display_name,priority", json=body)
        metadata = reply.json()["metadata"]
        assert (metadata["displayName"], metadata["priority"]) == ("other", "-3")
        reply = await http.patch(f"{path}?updateMask=displayName", json={"displayName": "third"})
        assert reply.json()["metadata"]["priority"] == "-3"
        for mask in ("", "inputConfig", "state"):
            assert (await http.patch(f"{path}?updateMask={mask}", json=body)).status_code == 400
        assert (await http.patch(f"{path}?updateMask=priority", json={"color": "red"})).status_code == 400
        sandbox.finish(name)
        assert (await http.patch(f"{path}?updateMask=priority", json=body)).status_code == 400


async def test_a_deleted_job_is_gone_but_its_results_and_its_create_stay(sandbox: Sandbox) -> None:
    async with raw(sandbox) as http:
        name = await create_from(http, generate_lines(2), displayName="mine")
        sandbox.finish(name)
        result_file = (await get_json(http, name))["metadata"]["output"]["responsesFile"]
        assert (await http.delete(f"/v1beta/{name}")).json() == {}
        for request in (
            http.get(f"/v1beta/{name}"),
            http.delete(f"/v1beta/{name}"),
            http.post(f"/v1beta/{name}:cancel"),
        ):
            assert (await request).status_code == 404
        assert len(parse_lines(await download(http, result_file))) == 2
    (record,) = sandbox.create_records
    assert (record.name, record.display_name, record.row_count) == (name, "mine", 2)


async def test_an_input_file_may_be_deleted_while_its_job_runs(sandbox: Sandbox) -> None:
    async with raw(sandbox) as http:
        file_name = await upload(http, generate_lines(3))
        name = (await create(http, file_name))["name"]
        assert (await http.delete(f"/v1beta/{file_name}")).status_code == 200
        sandbox.finish(name)
        assert len(await download_lines(http, await get_json(http, name))) == 3
    assert list((sandbox.state.directory / "jobs").iterdir()) == []


async def test_results_can_be_limited_to_the_first_rows(sandbox: Sandbox) -> None:
    async with raw(sandbox) as http:
        name = await create_from(http, generate_lines(5))
        sandbox.finish(name, "CANCELLED", answered_rows=2)
        operation = await get_json(http, name)
        assert [line["key"] for line in await download_lines(http, operation)] == ["row-0", "row-1"]
        stats = operation["metadata"]["batchStats"]
        assert (stats["successfulRequestCount"], stats["pendingRequestCount"]) == ("2", "3")


async def test_a_restarted_sandbox_knows_its_files_jobs_uploads_and_creates(tmp_path: Path) -> None:
    clock = Clock()
    config = SandboxConfig(pace=ByTime(10), clock_ns=clock)
    chunk = b"x" * 8 * 1024**2
    with Sandbox(tmp_path, config) as sandbox:
        async with raw(sandbox) as http:
            running = await create_from(http, generate_lines(3))
            await get_json(http, running)
            session = await start_upload(http, len(chunk) + 3)
            headers = {"X-Goog-Upload-Command": "upload", "X-Goog-Upload-Offset": "0"}
            await http.post(session, content=chunk, headers=headers)
    clock.pass_seconds(20)
    with Sandbox(tmp_path, config) as sandbox:
        async with raw(sandbox) as http:
            operation = await get_json(http, running)
            assert operation["metadata"]["state"] == "BATCH_STATE_SUCCEEDED"
            assert len(await download_lines(http, operation)) == 3
            headers = {"X-Goog-Upload-Command": "upload, finalize", "X-Goog-Upload-Offset": str(len(chunk))}
            file = (await http.post(session, content=b"end", headers=headers)).json()["file"]
            assert sandbox.state.file(file["name"]) is not None
            assert file["sha256Hash"] != ""
            assert sandbox.creates == 1
            assert len((await get_json(http, "files"))["files"]) == 3


async def test_two_processes_on_one_directory_wind_a_job_up_once(tmp_path: Path) -> None:
    config = SandboxConfig(pace=ByTime(0))
    with Sandbox(tmp_path, config) as one, Sandbox(tmp_path, config) as other:
        async with raw(one) as http, raw(other) as also:
            name = await create_from(http, generate_lines(500))
            seen: list[dict[str, Any]] = []

            async def look(client: httpx2.AsyncClient) -> None:
                seen.append(await get_json(client, name))

            async with anyio.create_task_group() as group:
                for client in (http, also, http, also):
                    group.start_soon(look, client)
            final = await get_json(http, name)
            assert final == await get_json(also, name)
            assert len(await download_lines(http, final)) == 500
            assert all(operation["name"] == name for operation in seen)


@pytest.mark.parametrize("inline", [True, False])
async def test_a_job_deleted_while_it_ends_leaves_nothing_behind(tmp_path: Path, inline: bool) -> None:
    """The choice of a row's fault runs while the answers are being written: the moment to interfere."""
    names: list[str] = []

    def delete_meanwhile(key: str) -> None:
        sandbox.forget_job(names[0])

    with Sandbox(tmp_path, SandboxConfig(pace=OnCommand(), row_faults=delete_meanwhile)) as sandbox:
        async with raw(sandbox) as http:
            if inline:
                names.append((await http.post(METHOD, json={"batch": {"inputConfig": ONE_INLINE}})).json()["name"])
            else:
                names.append(await create_from(http, generate_lines(1)))
            await anyio.to_thread.run_sync(sandbox.finish, names[0])
            assert (await http.get(f"/v1beta/{names[0]}")).status_code == 404
    assert list((tmp_path / "jobs").iterdir()) == []
    assert not list((tmp_path / "files").glob("batch-*"))


async def test_a_deleted_inline_job_takes_its_answers_along(sandbox: Sandbox) -> None:
    async with raw(sandbox) as http:
        name = (await http.post(METHOD, json={"batch": {"inputConfig": ONE_INLINE}})).json()["name"]
        sandbox.finish(name)
        assert len((await get_json(http, name))["response"]["inlinedResponses"]["inlinedResponses"]) == 1
        sandbox.forget_job(name)
    assert list((sandbox.state.directory / "jobs").iterdir()) == []


async def test_a_job_that_another_process_ends_first_keeps_that_end(tmp_path: Path) -> None:
    names: list[str] = []

    def end_elsewhere(key: str) -> None:
        other.finish(names[0], "PARTIALLY_SUCCEEDED")

    config = SandboxConfig(pace=OnCommand(), row_faults=end_elsewhere)
    with Sandbox(tmp_path, config) as one, Sandbox(tmp_path, SandboxConfig(pace=OnCommand())) as other:
        async with raw(one) as http:
            names.append(await create_from(http, generate_lines(1)))
            ended = await anyio.to_thread.run_sync(one.finish, names[0])
            assert ended.state == "BATCH_STATE_PARTIALLY_SUCCEEDED"
            assert len(await download_lines(http, await get_json(http, names[0]))) == 1


async def test_reads_find_a_job_running_while_its_answers_are_written(tmp_path: Path) -> None:
    names: list[str] = []
    seen: list[str] = []

    def read_meanwhile(key: str) -> None:
        job, ending = sandbox.jobs.read(names[0])
        seen.append(job.state)
        assert ending is not None

    clock = Clock()
    config = SandboxConfig(pace=ByTime(10), clock_ns=clock, row_faults=read_meanwhile)
    with Sandbox(tmp_path, config) as sandbox:
        async with raw(sandbox) as http:
            names.append(await create_from(http, generate_lines(2)))
            clock.pass_seconds(5)
            await get_json(http, names[0])
            clock.pass_seconds(5)
            assert await state_of(http, names[0]) == "BATCH_STATE_SUCCEEDED"
    assert seen == ["BATCH_STATE_RUNNING", "BATCH_STATE_RUNNING"]


async def test_a_job_whose_rows_are_gone_stays_as_it_is(sandbox: Sandbox) -> None:
    async with raw(sandbox) as http:
        name = await create_from(http, generate_lines(1))
        sandbox.state.rows_path(name).unlink()
        assert sandbox.finish(name).state == "BATCH_STATE_PENDING"


def test_a_failed_transaction_leaves_everything_as_it_was(sandbox: Sandbox) -> None:
    with pytest.raises(LookupError), sandbox.state.transaction():
        sandbox.state.save(CreateRecord("batches/a", "a", MODEL, "generate", 1, 1))
        raise LookupError
    assert sandbox.creates == 0


@pytest.mark.parametrize("source", ["file", "inline"])
@pytest.mark.parametrize("is_marked", [False, True])
async def test_an_output_can_come_later_than_the_end(tmp_path: Path, source: str, is_marked: bool) -> None:
    clock = Clock()
    config = SandboxConfig(pace=OnCommand(), clock_ns=clock, output_lag_seconds=0.0 if is_marked else 600.0)
    with Sandbox(tmp_path, config) as sandbox:
        async with raw(sandbox) as http:
            named = {"displayName": "[[sandbox:output-lag:600]]"} if is_marked else {"displayName": "late"}
            if source == "file":
                name = await create_from(http, generate_lines(2), **named)
            else:
                reply = await http.post(METHOD, json={"batch": {"inputConfig": ONE_INLINE, **named}})
                name = reply.json()["name"]
            sandbox.finish(name)
            clock.pass_seconds(599)
            early = await get_json(http, name)
            assert early["metadata"]["state"] == "BATCH_STATE_SUCCEEDED"
            assert "successfulRequestCount" in early["metadata"]["batchStats"]
            assert "response" not in early and "output" not in early["metadata"]
            clock.pass_seconds(1)
            late = await get_json(http, name)
            assert late["metadata"]["output"].keys() <= late["response"].keys()


@pytest.mark.parametrize("is_marked", [False, True])
async def test_a_result_file_can_be_there_later_than_its_name(tmp_path: Path, is_marked: bool) -> None:
    clock = Clock()
    config = SandboxConfig(pace=OnCommand(), clock_ns=clock, file_lag_seconds=0.0 if is_marked else 1800.0)
    with Sandbox(tmp_path, config) as sandbox:
        async with raw(sandbox) as http:
            marks = {"displayName": "[[sandbox:file-lag:1800]]"} if is_marked else {}
            name = await create_from(http, generate_lines(2), **marks)
            sandbox.finish(name)
            file = (await get_json(http, name))["metadata"]["output"]["responsesFile"]
            path = f"/v1beta/{file}:download?alt=media"
            assert (await http.get(path)).status_code == 404
            clock.pass_seconds(1800)
            assert (await http.get(path)).status_code == 200
            sandbox.forget_job(name)
            assert (await http.get(path)).status_code == 200
