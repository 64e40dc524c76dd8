"""The gateway, with the real SDK, against the sandbox: every call a job needs, from upload to delete."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from gemini_batch_mcp.domain import Job, JobState, RowCounts, Task
from gemini_batch_mcp.errors import NotFound, OutcomeUnknown, Unavailable
from gemini_batch_mcp.gemini.developer.gateway import Gateway, RetryPolicy, Timeouts
from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.sandbox.config import OnCommand, SandboxConfig
from support.gateways import JOB, MODEL, Script, answer, open_gateway, request_lines, sample

pytestmark = pytest.mark.anyio

EMBED_MODEL = "gemini-embedding-2"
TASKS: tuple[Task, ...] = ("generate", "embed")


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    with Sandbox(tmp_path / "sandbox", SandboxConfig(pace=OnCommand())) as sandbox:
        yield sandbox
        assert sandbox.unknown_requests == ()


async def job_of(gateway: Gateway, rows: int = 3, name: str = "reviews") -> Job:
    """Upload `rows` lines and create a job from them."""
    content = request_lines(rows)
    uploaded = await gateway.upload(io.BytesIO(content), size_bytes=len(content), display_name="in.jsonl")
    return await gateway.create_from_file(model=MODEL, file_name=uploaded.name, display_name=name, task="generate")


def embed_line(key: str, text: str) -> dict[str, Any]:
    return {"key": key, "request": {"content": {"parts": [{"text": text}]}, "outputDimensionality": 16}}


async def test_a_file_job_from_upload_to_results(tmp_path: Path, sandbox: Sandbox) -> None:
    steps: list[str] = []
    gateway = open_gateway(tmp_path, sandbox.transport(), hook=steps.append)
    job = await job_of(gateway)
    assert (job.state, job.display_name, job.model, job.counts) == (
        JobState.PENDING,
        "reviews",
        f"models/{MODEL}",
        RowCounts(total=3, pending=3),
    )
    sandbox.finish(job.name)
    done = await gateway.get_job(job.name)
    assert (done.state, done.counts) == (JobState.SUCCEEDED, RowCounts(total=3, succeeded=3))
    await gateway.download(done.responses_file, tmp_path / "out")
    keys = [json.loads(line)["key"] for line in (tmp_path / "out").read_bytes().splitlines()]
    assert sorted(keys) == ["row-0", "row-1", "row-2"]
    await gateway.delete_job(job.name)
    await gateway.delete_file(job.input_file)
    await gateway.aclose()
    assert [step for step in steps if step.endswith(":before")] == [
        "upload:before",
        "upload_start:before",
        "upload_finalize:before",
        "create:before",
        "get:before",
        "download:before",
        "delete_job:before",
        "delete_file:before",
    ]
    assert sorted(step.replace(":after", "") for step in steps if step.endswith(":after")) == sorted(
        step.replace(":before", "") for step in steps if step.endswith(":before")
    )


@pytest.mark.parametrize(
    ("task", "model", "lines"),
    [
        ("generate", MODEL, [json.loads(line) for line in request_lines(3).splitlines()]),
        ("embed", EMBED_MODEL, [embed_line(f"row-{number}", "text") for number in range(3)]),
    ],
)
async def test_an_inline_job_answers_under_its_keys(
    tmp_path: Path, sandbox: Sandbox, task: Task, model: str, lines: list[dict[str, Any]]
) -> None:
    gateway = open_gateway(tmp_path, sandbox.transport())
    job = await gateway.create_inline(model=model, requests=lines, display_name="inline", task=task)
    sandbox.finish(job.name)
    done = await gateway.get_job(job.name)
    assert done.inlined_responses is not None and done.responses_file == ""
    assert {item["metadata"]["key"] for item in done.inlined_responses} == {"row-0", "row-1", "row-2"}
    await gateway.aclose()


async def test_an_embedding_job_from_a_file(tmp_path: Path, sandbox: Sandbox) -> None:
    gateway = open_gateway(tmp_path, sandbox.transport())
    content = b"".join(json.dumps(embed_line(key, "text")).encode() + b"\n" for key in "ab")
    uploaded = await gateway.upload(io.BytesIO(content), size_bytes=len(content), display_name="in.jsonl")
    job = await gateway.create_from_file(
        model=EMBED_MODEL, file_name=uploaded.name, display_name="vectors", task="embed"
    )
    assert sandbox.create_records[0].task == "embed"
    assert job.counts.total == 2
    await gateway.aclose()


@pytest.mark.parametrize(("number", "task"), [("02", "generate"), ("04", "embed")])
async def test_an_inline_create_sends_what_the_sample_shows(tmp_path: Path, number: str, task: Task) -> None:
    wanted = sample(number)
    items = wanted["batch"]["inputConfig"]["requests"]["requests"]
    model = items[0]["request"]["model"]
    lines = [
        {
            "key": item["metadata"]["key"],
            "request": {name: value for name, value in item["request"].items() if name != "model"},
        }
        for item in items
    ]
    script = Script(answer(sample("05")))
    gateway = open_gateway(tmp_path, script)
    await gateway.create_inline(model=model, requests=lines, display_name=wanted["batch"]["displayName"], task=task)
    method = {"generate": "batchGenerateContent", "embed": "asyncBatchEmbedContent"}[task]
    assert script.requests[0].url.path == f"/v1beta/{model}:{method}"
    assert json.loads(script.requests[0].content) == wanted
    await gateway.aclose()


async def test_a_file_create_sends_what_the_sample_shows(tmp_path: Path) -> None:
    script = Script(answer(sample("05")))
    gateway = open_gateway(tmp_path, script)
    for task in TASKS:
        await gateway.create_from_file(model=MODEL, file_name="files/em4h7t1q", display_name="embed-docs", task=task)
    generate_body, embed_body = [json.loads(request.content) for request in script.requests]
    assert generate_body == sample("03")
    # The SDK leaves this one member in snake_case, which proto-JSON reads the same.
    assert embed_body["batch"]["inputConfig"] == {"file_name": "files/em4h7t1q"}
    await gateway.aclose()


async def test_what_a_line_says_goes_out_untouched(tmp_path: Path) -> None:
    request = {
        "contents": [{"role": "user", "parts": [{"text": "a\u2028b \ud800 \x00"}]}],
        "requests": {"requests": [1]},
        "inputConfig": {"file_name": "x", "fileName": "y"},
        "generation_config": {"responseSchema": {"properties": {"some_name": {}, "someName": {}}}},
        "_url": {"model": "z"},
        "unknownMember": [None, 1.5, True, {}],
        "model": "models/another",
    }
    for task in TASKS:
        script = Script(answer(sample("05")))
        gateway = open_gateway(tmp_path, script)
        await gateway.create_inline(
            model=MODEL, requests=[{"key": "é", "request": request}], display_name="d", task=task
        )
        sent = json.loads(script.requests[0].content)
        assert sent["batch"]["inputConfig"] == {
            "requests": {"requests": [{"request": request, "metadata": {"key": "é"}}]}
        }
        await gateway.aclose()


async def test_a_failed_job_shows_its_counts_and_its_error(tmp_path: Path, sandbox: Sandbox) -> None:
    gateway = open_gateway(tmp_path, sandbox.transport())
    job = await job_of(gateway)
    sandbox.finish(job.name, state="FAILED", error={"code": 3, "message": "the input could not be processed"})
    failed = await gateway.get_job(job.name)
    assert failed.state is JobState.FAILED
    assert failed.error is not None and "could not be processed" in failed.error.message
    await gateway.aclose()


async def test_a_new_state_survives(tmp_path: Path, sandbox: Sandbox) -> None:
    gateway = open_gateway(tmp_path, sandbox.transport())
    job = await job_of(gateway)
    sandbox.set_state(job.name, "BATCH_STATE_DREAMING")
    read = await gateway.get_job(job.name)
    assert (read.state, read.wire_state) == (JobState.UNSPECIFIED, "BATCH_STATE_DREAMING")
    await gateway.aclose()


async def test_a_cancelled_job_and_a_forgotten_one(tmp_path: Path, sandbox: Sandbox) -> None:
    gateway = open_gateway(tmp_path, sandbox.transport())
    job = await job_of(gateway)
    await gateway.cancel_job(job.name.removeprefix("batches/"))
    sandbox.advance(job.name)
    assert (await gateway.get_job(job.name)).state is JobState.CANCELLED
    sandbox.forget_job(job.name)
    with pytest.raises(NotFound):
        await gateway.get_job(job.name)
    await gateway.aclose()


async def test_jobs_are_listed_page_by_page(tmp_path: Path, sandbox: Sandbox) -> None:
    gateway = open_gateway(tmp_path, sandbox.transport())
    names = {(await job_of(gateway, 1, f"job {number}")).name for number in range(5)}
    listed, token, pages = [], "", 0
    while pages == 0 or token:
        page = await gateway.list_jobs(page_size=2, page_token=token)
        listed += [job.name for job in page.jobs]
        token = page.next_page_token
        pages += 1
    assert (len(listed), set(listed), pages) == (5, names, 3)
    await gateway.aclose()


async def test_models_are_listed_over_all_pages(tmp_path: Path, sandbox: Sandbox) -> None:
    gateway = open_gateway(tmp_path, sandbox.transport())
    methods = {model.name: model.batch_methods for model in await gateway.list_models()}
    assert methods[f"models/{MODEL}"] == ("batchGenerateContent",)
    assert methods[f"models/{EMBED_MODEL}"] == ("asyncBatchEmbedContent",)
    await gateway.aclose()

    def page(token: str) -> Any:
        return answer({"models": [{"name": f"models/m{token}"}], **({"nextPageToken": token} if token else {})})

    script = Script(page("a"), page("b"), page(""))
    gateway = open_gateway(tmp_path, script)
    assert [model.name for model in await gateway.list_models()] == ["models/ma", "models/mb", "models/m"]
    assert [request.url.params.get("pageToken") for request in script.requests] == [None, "a", "b"]
    await gateway.aclose()


async def test_a_model_list_that_goes_in_circles_ends(tmp_path: Path) -> None:
    script = Script(answer({"models": [], "nextPageToken": "same"}))
    gateway = open_gateway(tmp_path, script)
    assert await gateway.list_models() == ()
    assert len(script.requests) == 2
    await gateway.aclose()


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 500, "when": "after"},
        {"status": 503, "when": "before"},
    ],
)
async def test_a_create_that_failed_at_gemini_is_made_at_most_once(
    tmp_path: Path, sandbox: Sandbox, fault: dict[str, Any]
) -> None:
    gateway = open_gateway(tmp_path, sandbox.transport())
    sandbox.fail_next("batches.create", **fault)
    with pytest.raises(OutcomeUnknown):
        await job_of(gateway)
    assert sandbox.creates == (1 if fault["when"] == "after" else 0)
    assert [request.route for request in sandbox.requests].count("batches.create") == 1
    await gateway.aclose()


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_create_whose_connection_was_cut_is_made_at_most_once(
    tmp_path: Path, sandbox: Sandbox, when: str
) -> None:
    gateway = open_gateway(tmp_path, sandbox.transport())
    sandbox.cut_next("batches.create", when="after" if when == "after" else "before")
    with pytest.raises(OutcomeUnknown):
        await job_of(gateway)
    assert sandbox.creates == (1 if when == "after" else 0)
    await gateway.aclose()


async def test_a_slow_create_is_unknown_and_a_slow_read_is_unavailable(tmp_path: Path, sandbox: Sandbox) -> None:
    # One limit at a time: the upload before the create, whose end has the same one, takes as long as the machine needs.
    gateway = open_gateway(tmp_path, sandbox.transport())
    content = request_lines(3)
    uploaded = await gateway.upload(io.BytesIO(content), size_bytes=len(content), display_name="in.jsonl")
    await gateway.aclose()
    gateway = open_gateway(tmp_path, sandbox.transport(), timeouts=Timeouts(create_seconds=0.05))
    sandbox.delay_next("batches.create", 0.3)
    with pytest.raises(OutcomeUnknown):
        await gateway.create_from_file(model=MODEL, file_name=uploaded.name, display_name="slow", task="generate")
    await gateway.aclose()
    gateway = open_gateway(
        tmp_path,
        sandbox.transport(),
        timeouts=Timeouts(reply_seconds=0.05),
        retry=RetryPolicy(attempts=2, initial_delay_seconds=0.001, max_delay_seconds=0.01),
    )
    sandbox.delay_next("batches.list", 0.3, times=2)
    with pytest.raises(Unavailable, match="did not answer in time"):
        await gateway.list_jobs(page_size=1)
    await gateway.aclose()


async def test_what_the_hook_raises_ends_the_call_before_its_effect(tmp_path: Path, sandbox: Sandbox) -> None:
    class Killed(BaseException):
        pass

    def hook(step: str) -> None:
        if step == "create:before":
            raise Killed

    gateway = open_gateway(tmp_path, sandbox.transport(), hook=hook)
    with pytest.raises(Killed):
        await job_of(gateway)
    assert sandbox.creates == 0
    await gateway.aclose()


async def test_many_calls_at_once_share_one_connection(tmp_path: Path, sandbox: Sandbox) -> None:
    gateway = open_gateway(tmp_path, sandbox.transport())
    jobs: list[Job] = []

    async def run(number: int) -> None:
        job = await job_of(gateway, 1, f"job {number}")
        jobs.append(await gateway.get_job(job.name))

    async with anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon(run, number)
    assert {job.display_name for job in jobs} == {f"job {number}" for number in range(20)}
    await gateway.aclose()


async def test_a_gateway_that_was_never_used_closes_its_transport(tmp_path: Path) -> None:
    class Closing(Script):
        closed = False

        async def aclose(self) -> None:
            self.closed = True

    transport = Closing(answer({}))
    await open_gateway(tmp_path, transport).aclose()
    assert transport.closed


async def test_a_reply_without_a_name_is_the_job_that_was_asked_for(tmp_path: Path) -> None:
    gateway = open_gateway(tmp_path, Script(answer({"metadata": {"state": "BATCH_STATE_RUNNING"}})))
    assert await gateway.get_job(JOB) == Job(name=JOB, state=JobState.RUNNING, wire_state="BATCH_STATE_RUNNING")
    await gateway.aclose()
