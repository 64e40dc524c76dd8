"""Tasks: calls of clients that take them are answered with one, whose state is the batch, in every process."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import pytest
from mcp.client import Client
from mcp.client.extension import ClaimContext, ClientExtension, ResultClaim
from mcp.client.session import ElicitationFnT
from mcp.shared.exceptions import MCPError
from mcp_types import CallToolResult, Request, RequestParams, Result
from pydantic import ConfigDict, Field

from gemini_batch_mcp.assistant.server import build_server
from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.settings import Settings
from support.conversation import Person, converse, line, newest, request_file, spoken, write_lines

pytestmark = pytest.mark.anyio

TASKS = "io.modelcontextprotocol/tasks"


class Handed(Result):
    """What a client gets instead of a tool's result."""

    model_config = ConfigDict(extra="allow")

    result_type: Literal["task"] = Field(alias="resultType")
    task_id: str = Field(alias="taskId")


async def _unresolved(handed: Handed, context: ClaimContext) -> CallToolResult:
    raise AssertionError("the tests follow tasks themselves")


class TakesTasks(ClientExtension):
    identifier = TASKS

    def claims(self) -> Sequence[ResultClaim[Any]]:
        return (ResultClaim(result_type="task", model=Handed, resolve=_unresolved),)


class Params(RequestParams):
    model_config = ConfigDict(extra="allow")

    task_id: str = Field(alias="taskId")


class TaskRequest(Request[Params, str]):
    name_param = "taskId"


class Wanted(RequestParams):
    notifications: dict[str, Any]


class Answer(Result):
    """Whatever comes."""

    model_config = ConfigDict(extra="allow")


@dataclass(frozen=True)
class Talk:
    """A client that takes tasks, and follows them by hand."""

    client: Client

    async def call(self, tool: str, **arguments: Any) -> CallToolResult | Handed:
        answer: Any = await self.client.session.call_tool(tool, arguments, allow_claimed=True)
        assert isinstance(answer, CallToolResult | Handed)
        return answer

    async def begin(self, tool: str, **arguments: Any) -> str:
        """Call a tool that must answer with a task; returns its id."""
        handed = await self.call(tool, **arguments)
        assert isinstance(handed, Handed), spoken(handed)
        return handed.task_id

    async def ask(self, method: str, task: str, **params: Any) -> dict[str, Any]:
        """Send one of the extension's requests; returns its answer without the stamp of the server."""
        request = TaskRequest(method=f"tasks/{method}", params=Params(taskId=task, **params))
        answer = await self.client.session.send_request(request, Answer)
        return answer.model_dump(by_alias=True, exclude={"meta"})

    async def get(self, task: str) -> dict[str, Any]:
        return await self.ask("get", task)

    async def update(self, task: str, answers: dict[str, Any]) -> dict[str, Any]:
        return await self.ask("update", task, inputResponses=answers)

    async def error(self, asked: Awaitable[Any]) -> MCPError:
        with pytest.raises(MCPError) as refused:
            await asked
        return refused.value


@asynccontextmanager
async def tasking(settings: Settings, sandbox: Sandbox, person: ElicitationFnT | None = None) -> AsyncIterator[Talk]:
    """A new server on the same state, and a client that takes tasks."""
    server = build_server(settings, transport=sandbox.transport)
    async with Client(server, mode="auto", elicitation_callback=person, extensions=[TakesTasks()]) as client:
        yield Talk(client)


async def test_a_task_is_there_at_once_and_in_the_next_process_and_ends_with_the_tools_own_answer(
    settings: Settings, sandbox: Sandbox, data: Path
) -> None:
    async with tasking(settings, sandbox) as talk:
        assert TASKS in (talk.client.server_capabilities.extensions or {})
        handed = await talk.call("create_batch", source=request_file(data))
        assert isinstance(handed, Handed)
        told = handed.model_dump(by_alias=True, exclude={"meta"})
        assert told.keys() == {
            *("resultType", "taskId", "status", "statusMessage"),
            *("createdAt", "lastUpdatedAt", "ttlMs", "pollIntervalMs"),
        }
        assert (told["status"], told["ttlMs"], told["pollIntervalMs"]) == ("working", None, 10_000)
        assert " ordered: 3 requests" in told["statusMessage"] and "Estimate: " in told["statusMessage"]
        assert datetime.fromisoformat(told["createdAt"]) <= datetime.fromisoformat(told["lastUpdatedAt"])
        working = await talk.get(handed.task_id)
        assert (working["resultType"], working["status"]) == ("complete", "working")
        assert working.keys() == told.keys()
        assert working["createdAt"] == told["createdAt"]
    sandbox.finish(newest(sandbox))
    async with tasking(settings, sandbox) as talk:
        done = await talk.get(handed.task_id)
        assert done["status"] == "completed"
        assert done.keys() == told.keys() | {"result"}
        result = CallToolResult.model_validate(done["result"])
        assert result.is_error is False
        assert spoken(result).endswith("the answers are not read yet. Call get_results.")
        view = result.structured_content
        assert (view["state"], view["reused"], view["request_count"]) == ("JOB_STATE_SUCCEEDED", False, 3)
        # What has ended is no task any more.
        again = await talk.call("create_batch", source=request_file(data))
        assert isinstance(again, CallToolResult) and again.structured_content["reused"] is True
        assert again.structured_content.keys() == view.keys()
        await talk.call("delete_batch", batch=view["batch_id"], confirm=True)
        assert (await talk.error(talk.get(handed.task_id))).code == -32602


@pytest.mark.both_eras
async def test_nothing_changes_for_a_client_that_does_not_take_tasks(
    settings: Settings, sandbox: Sandbox, data: Path, era: str
) -> None:
    async with converse(settings, sandbox, era) as talk:
        created = await talk.call("create_batch", source=request_file(data))
        assert created["state"] == "JOB_STATE_PENDING"
        listening = Request[Wanted, str](method="subscriptions/listen", params=Wanted(notifications={"taskIds": ["x"]}))
        for request in (TaskRequest(method="tasks/get", params=Params(taskId="anything")), listening):
            with pytest.raises(MCPError) as refused:
                await talk.client.session.send_request(request, Answer)
            assert refused.value.code == (-32601 if era == "legacy" else -32021)
    # It said so when it shook hands, in a protocol that has no tasks.
    server = build_server(settings, transport=sandbox.transport)
    async with Client(server, mode=era, extensions=[TakesTasks()]) as client:
        answer: Any = await client.session.call_tool("create_batch", {"source": request_file(data)}, allow_claimed=True)
    assert isinstance(answer, CallToolResult) is (era == "legacy")


async def test_a_task_is_there_only_after_the_user_has_agreed(settings: Settings, sandbox: Sandbox, data: Path) -> None:
    asking = replace(settings, confirm_above_usd=0.0)
    order = {"source": request_file(data)}
    async with tasking(asking, sandbox, Person("decline")) as talk:
        session = talk.client.session
        question: Any = await session.call_tool("create_batch", order, allow_input_required=True, allow_claimed=True)
        assert (question.result_type, hasattr(question, "task_id")) == ("input_required", False)
        assert "The user was asked and declined" in spoken(await talk.client.call_tool("create_batch", order))
    assert sandbox.creates == 0
    handed: list[str] = []

    class Follows(TakesTasks):
        def claims(self) -> Sequence[ResultClaim[Any]]:
            return (ResultClaim(result_type="task", model=Handed, resolve=follow),)

    async def follow(task: Handed, context: ClaimContext) -> CallToolResult:
        handed.append(task.task_id)
        sandbox.finish(newest(sandbox))
        request = TaskRequest(method="tasks/get", params=Params(taskId=task.task_id))
        done = await context.session.send_request(request, Answer)
        return CallToolResult.model_validate(done.model_dump()["result"])

    server = build_server(asking, transport=sandbox.transport)
    async with Client(server, elicitation_callback=Person(), extensions=[Follows()]) as client:
        answer = await client.call_tool("create_batch", order)
    assert len(handed) == 1
    assert answer.structured_content is not None and answer.structured_content["state"] == "JOB_STATE_SUCCEEDED"


async def test_a_task_stays_as_it_ended_when_rows_are_sent_again(
    settings: Settings, sandbox: Sandbox, data: Path
) -> None:
    lines = [line("a", "[[sandbox:error:13]]"), line("b", "fine")]
    async with tasking(settings, sandbox) as talk:
        first = await talk.begin("create_batch", source=write_lines(data / "rows.jsonl", lines))
        # Found under way by another call: a task of its own, which says so.
        other = await talk.begin("create_batch", source=str(data / "rows.jsonl"))
        assert other != first
        sandbox.finish(newest(sandbox))
        batch = (await talk.get(first))["result"]["structuredContent"]["batch_id"]
        assert (await talk.get(other))["result"]["structuredContent"]["reused"] is True
        again = await talk.begin("retry_failed", batch=batch)
        assert [(await talk.get(task))["status"] for task in (first, again)] == ["completed", "working"]
        # A task that has ended cancels nothing of what came after it.
        assert await talk.ask("cancel", first) == {"resultType": "complete"}
        sandbox.finish(newest(sandbox))
        ended = await talk.get(again)
    assert ended["status"] == "completed"
    assert ended["result"]["structuredContent"]["request_count"] == 1
    assert not any(request.route == "batches.cancel" for request in sandbox.requests)


async def test_a_batch_that_fails_is_a_completed_task_with_an_error_and_a_silent_gemini_ends_none(
    settings: Settings, sandbox: Sandbox, data: Path
) -> None:
    async with tasking(settings, sandbox) as talk:
        task = await talk.begin("create_batch", source=request_file(data))
        sandbox.fail_next("batches.get", status=403)
        silent = await talk.get(task)
        assert silent["status"] == "working" and "403" in silent["statusMessage"]
        sandbox.finish(newest(sandbox), "FAILED")
        failed = await talk.get(task)
    assert failed["status"] == "completed"
    assert failed["result"]["isError"] is True
    assert "The whole job failed" in failed["result"]["content"][0]["text"]


async def test_a_cancelled_task_is_a_cancelled_batch(settings: Settings, sandbox: Sandbox, data: Path) -> None:
    async with tasking(settings, sandbox) as talk:
        task = await talk.begin("create_batch", source=request_file(data))
        assert await talk.ask("cancel", task) == {"resultType": "complete"}
        assert "JOB_STATE_CANCELLING" in (await talk.get(task))["statusMessage"]
        sandbox.advance(newest(sandbox))
        ended = await talk.get(task)
        assert ended["status"] == "cancelled" and "result" not in ended
        assert await talk.ask("cancel", task) == {"resultType": "complete"}


@dataclass(frozen=True)
class Reply:
    """What a client sends back to the question of a task, and what becomes of the task."""

    answer: Callable[[str], dict[str, Any]]
    cancels: bool


REPLIES = {
    "yes": Reply(lambda name: {name: {"action": "accept", "content": {"stop": True}}}, cancels=True),
    "no": Reply(lambda name: {name: {"action": "decline"}}, cancels=False),
    "not ticked": Reply(lambda name: {name: {"action": "accept", "content": {"stop": False}}}, cancels=False),
    "no form": Reply(lambda name: {name: {"action": "accept", "content": {"stop": "whatever"}}}, cancels=False),
}


@pytest.mark.parametrize("reply", REPLIES.values(), ids=REPLIES)
async def test_a_cancel_that_loses_rows_is_a_question_of_the_task(
    settings: Settings, sandbox: Sandbox, data: Path, reply: Reply
) -> None:
    source = Path(request_file(data))
    async with tasking(settings, sandbox, Person()) as talk:
        task = await talk.begin("create_batch", source=str(source))
        source.unlink()
        assert await talk.ask("cancel", task) == {"resultType": "complete"}
    async with tasking(settings, sandbox, Person()) as talk:
        open_task = await talk.get(task)
        assert open_task["status"] == "input_required"
        ((name, question),) = open_task["inputRequests"].items()
        assert question["method"] == "elicitation/create"
        assert question["params"]["message"].startswith("gemini-batch-mcp asks: cancel reviews-")
        assert question["params"]["requestedSchema"]["properties"].keys() == {"stop"}
        assert (await talk.get(task))["inputRequests"] == open_task["inputRequests"]
        assert await talk.update(task, {"another": {"ignored": True}}) == {"resultType": "complete"}
        assert (await talk.error(talk.update(task, {name: {"action": "maybe"}}))).code == -32602
        assert (await talk.get(task))["status"] == "input_required"

        assert await talk.update(task, reply.answer(name)) == {"resultType": "complete"}

        after = await talk.get(task)
        assert after["status"] == "working"
        assert ("JOB_STATE_CANCELLING" in after["statusMessage"]) is reply.cancels
        # An answer that comes late, or once more, changes nothing.
        await talk.update(task, REPLIES["yes"].answer(name))
        if not reply.cancels:
            await talk.ask("cancel", task)
            assert (await talk.get(task))["inputRequests"].keys() != {name}
    assert any(request.route == "batches.cancel" for request in sandbox.requests) is reply.cancels


async def test_a_cancel_that_loses_rows_is_refused_where_nobody_can_be_asked(
    settings: Settings, sandbox: Sandbox, data: Path
) -> None:
    source = Path(request_file(data))
    async with tasking(settings, sandbox) as talk:
        task = await talk.begin("create_batch", source=str(source))
        source.unlink()
        refused = await talk.error(talk.ask("cancel", task))
        assert refused.code == -32021
        assert refused.error.data == {"requiredCapabilities": {"elicitation": {"form": {}}}}
        assert "Nothing was cancelled" in refused.message and "call cancel_batch with confirm=true" in refused.message
        assert (await talk.get(task))["status"] == "working"


async def test_ids_of_tasks_cannot_be_made_up(settings: Settings, sandbox: Sandbox, data: Path, tmp_path: Path) -> None:
    async with tasking(settings, sandbox) as talk:
        task = await talk.begin("create_batch", source=request_file(data))
        batch, attempt, began, reused, mark = task.split(".")
        assert len(mark) == 32
        made_up = (
            *("", "x", batch, "….…", "a.b.c.d.e", "." * 4, "9" * 10_000, f"{batch}.{attempt}.{began}.{reused}."),
            f"{batch}.{attempt}.{began}.1.{mark}",
            f"{batch}.2.{began}.{reused}.{mark}",
            f"{batch}.{attempt}.{int(began) + 1}.{reused}.{mark}",
            task.upper(),
            f"{task[:-1]}{'0' if task[-1] != '0' else '1'}",
        )
        for wrong in made_up:
            for asked in (talk.get(wrong), talk.update(wrong, {}), talk.ask("cancel", wrong)):
                refused = await talk.error(asked)
                assert (refused.code, "no task with this id" in refused.message) == (-32602, True)
    async with tasking(replace(settings, home=tmp_path / "other"), sandbox) as talk:
        assert (await talk.error(talk.get(task))).code == -32602
    assert not any(request.route == "batches.cancel" for request in sandbox.requests)


async def test_who_may_only_read_is_offered_no_tasks(settings: Settings, sandbox: Sandbox) -> None:
    async with tasking(replace(settings, read_only=True), sandbox) as talk:
        assert TASKS not in (talk.client.server_capabilities.extensions or {})
        assert (await talk.error(talk.get("x"))).code == -32601
