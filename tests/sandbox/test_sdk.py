"""The sandbox under Google's own Python client, in process and on a port."""

import base64
import hashlib
import json
from pathlib import Path

import pytest
from google.genai import errors, types
from google.genai._common import ExperimentalWarning

from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.sandbox.config import ByReads, SandboxConfig
from support.extent import long
from support.services import EMBEDDING_MODEL, MODEL, Way, generate_line, generate_lines, parse_lines, sdk, texts

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["process", "port"])
def way(request: pytest.FixtureRequest) -> Way:
    return "port" if request.param == "port" else "process"


@long
async def test_a_file_of_25_megabytes_goes_through_the_whole_life_of_a_batch(
    sandbox: Sandbox, tmp_path: Path, way: Way
) -> None:
    source = tmp_path / "in.jsonl"
    text = "The parcel came late. " * 400
    source.write_bytes(b"".join(generate_line(f"row-{number}", f"{number} {text}") + b"\n" for number in range(2900)))
    assert source.stat().st_size > 25 * 1000**2
    async with sdk(sandbox, way) as client:
        uploaded = await client.files.upload(file=source, config={"mime_type": "jsonl", "display_name": "in"})
        assert uploaded.name
        assert uploaded.size_bytes == source.stat().st_size
        assert uploaded.sha256_hash
        assert base64.b64decode(uploaded.sha256_hash).decode() == hashlib.sha256(source.read_bytes()).hexdigest()

        job = await client.batches.create(model=MODEL, src=uploaded.name, config={"display_name": "whole life"})
        assert job.name
        assert job.state == types.JobState.JOB_STATE_PENDING
        sandbox.advance(job.name)
        assert (await client.batches.get(name=job.name)).state == types.JobState.JOB_STATE_RUNNING
        sandbox.advance(job.name)
        job = await client.batches.get(name=job.name)
        assert job.state == types.JobState.JOB_STATE_SUCCEEDED
        assert job.dest and job.dest.file_name

        destination = tmp_path / "out.jsonl"
        await client.files.download(file=job.dest.file_name, destination=destination)
        answers = texts(parse_lines(destination.read_bytes()))
        assert len(answers) == 2900
        assert all(answer.startswith("[sandbox]") for answer in answers.values())
        assert await client.files.download(file=job.dest.file_name) == destination.read_bytes()

        await client.files.delete(name=uploaded.name)
        with pytest.raises(errors.ClientError) as gone:
            await client.files.get(name=uploaded.name)
        assert gone.value.code == 404
    chunks = [request for request in sandbox.requests if request.route in ("files.chunk", "files.finalize")]
    assert [request.request_bytes for request in chunks[:-1]] == [8 * 1024**2] * 3
    assert sum(request.request_bytes for request in chunks) == source.stat().st_size


async def test_an_empty_file_uploads_and_its_batch_is_refused(sandbox: Sandbox, tmp_path: Path, way: Way) -> None:
    source = tmp_path / "empty.jsonl"
    source.touch()
    async with sdk(sandbox, way) as client:
        uploaded = await client.files.upload(file=source, config={"mime_type": "jsonl"})
        assert uploaded.name
        with pytest.raises(errors.ClientError, match="holds no requests"):
            await client.batches.create(model=MODEL, src=uploaded.name)


async def test_inlined_requests_are_answered_inline_under_their_metadata(sandbox: Sandbox, way: Way) -> None:
    config = types.GenerateContentConfig(
        system_instruction="Answer with one word.",
        max_output_tokens=256,
        thinking_config=types.ThinkingConfig(thinking_level=types.ThinkingLevel.LOW),
        tools=[types.Tool(google_search=types.GoogleSearch())],
        safety_settings=[
            types.SafetySetting(
                category=types.HarmCategory.HARM_CATEGORY_HARASSMENT,
                threshold=types.HarmBlockThreshold.BLOCK_ONLY_HIGH,
            )
        ],
    )
    requests = [
        types.InlinedRequest(contents="one", metadata={"key": "a"}, config=config),
        types.InlinedRequest(contents="two [[sandbox:error]]", metadata={"key": "b"}),
        types.InlinedRequest(contents="three"),
    ]
    async with sdk(sandbox, way) as client:
        job = await client.batches.create(model=MODEL, src=requests, config={"display_name": "inline"})
        assert job.name
        sandbox.finish(job.name)
        job = await client.batches.get(name=job.name)
        assert job.dest and job.dest.inlined_responses
        first, second, third = job.dest.inlined_responses
        assert first.metadata == {"key": "a"}
        assert first.response and first.response.text and first.response.text.startswith("[sandbox]")
        assert second.metadata == {"key": "b"}
        assert second.error and second.error.code == 13
        assert third.metadata is None
        assert third.response and third.response.text


async def test_embeddings_come_back_for_files_and_for_inlined_texts(sandbox: Sandbox, tmp_path: Path, way: Way) -> None:
    source = tmp_path / "embed.jsonl"
    request = {"content": {"parts": [{"text": "river ferry timetable"}]}, "outputDimensionality": 768}
    source.write_text(json.dumps({"key": "e1", "request": request}) + "\n", encoding="utf-8")
    async with sdk(sandbox, way) as client:
        uploaded = await client.files.upload(file=source, config={"mime_type": "jsonl"})
        with pytest.warns(ExperimentalWarning):
            from_file = await client.batches.create_embeddings(
                model=EMBEDDING_MODEL, src=types.EmbeddingsBatchJobSource(file_name=uploaded.name)
            )
            inline = await client.batches.create_embeddings(
                model=EMBEDDING_MODEL,
                src=types.EmbeddingsBatchJobSource(
                    inlined_requests=types.EmbedContentBatch(
                        contents=["river ferry", "night bus"],
                        config=types.EmbedContentConfig(output_dimensionality=256),
                    )
                ),
            )
        assert from_file.name and inline.name
        sandbox.finish(from_file.name)
        sandbox.finish(inline.name)
        from_file = await client.batches.get(name=from_file.name)
        assert from_file.dest and from_file.dest.file_name
        (line,) = parse_lines(await client.files.download(file=from_file.dest.file_name))
        assert line["key"] == "e1"
        assert len(line["response"]["embedding"]["values"]) == 768
        inline = await client.batches.get(name=inline.name)
        assert inline.dest and inline.dest.inlined_embed_content_responses
        vectors = [one.response.embedding for one in inline.dest.inlined_embed_content_responses if one.response]
        assert [len(vector.values or []) for vector in vectors if vector] == [256, 256]


async def test_a_cancelled_job_ends_later_and_a_deleted_one_is_gone(tmp_path: Path, way: Way) -> None:
    source = tmp_path / "in.jsonl"
    source.write_bytes(generate_lines(3))
    with Sandbox(tmp_path / "service", SandboxConfig(pace=ByReads(10))) as sandbox:
        async with sdk(sandbox, way) as client:
            uploaded = await client.files.upload(file=source, config={"mime_type": "jsonl"})
            job = await client.batches.create(model=MODEL, src=uploaded.name or "")
            assert job.name
            await client.batches.cancel(name=job.name)
            assert (await client.batches.get(name=job.name)).state == types.JobState.JOB_STATE_CANCELLED
            await client.batches.delete(name=job.name)
            with pytest.raises(errors.ClientError) as gone:
                await client.batches.get(name=job.name)
            assert gone.value.code == 404
        assert sandbox.unknown_requests == ()


async def test_lists_of_jobs_and_files_come_in_pages_newest_first(sandbox: Sandbox, tmp_path: Path, way: Way) -> None:
    source = tmp_path / "in.jsonl"
    source.write_bytes(generate_lines(1))
    async with sdk(sandbox, way) as client:
        file_names, job_names = [], []
        for _ in range(5):
            uploaded = await client.files.upload(file=source, config={"mime_type": "jsonl"})
            job = await client.batches.create(model=MODEL, src=uploaded.name or "")
            file_names.append(uploaded.name)
            job_names.append(job.name)
        listed_jobs = [job.name async for job in await client.batches.list(config={"page_size": 2})]
        listed_files = [file.name async for file in await client.files.list(config={"page_size": 2})]
    assert listed_jobs == job_names[::-1]
    assert listed_files == file_names[::-1]


async def test_models_and_tokens_can_be_asked_for(sandbox: Sandbox, way: Way) -> None:
    async with sdk(sandbox, way) as client:
        models = {model.name: model async for model in await client.models.list(config={"page_size": 5})}
        assert "batchGenerateContent" in (models[f"models/{MODEL}"].supported_actions or [])
        assert "asyncBatchEmbedContent" in (models[f"models/{EMBEDDING_MODEL}"].supported_actions or [])
        assert (await client.models.get(model=MODEL)).input_token_limit == 1_048_576
        counted = await client.models.count_tokens(model=MODEL, contents="Sort this note.")
        assert counted.total_tokens == 4


async def test_the_same_requests_always_get_the_same_answers(sandbox: Sandbox, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_bytes(generate_lines(20))
    results = []
    async with sdk(sandbox) as client:
        for _ in range(2):
            uploaded = await client.files.upload(file=source, config={"mime_type": "jsonl"})
            job = await client.batches.create(model=MODEL, src=uploaded.name or "")
            sandbox.finish(job.name or "")
            job = await client.batches.get(name=job.name or "")
            assert job.dest and job.dest.file_name
            results.append(await client.files.download(file=job.dest.file_name))
    assert results[0] == results[1]
    assert len(set(texts(parse_lines(results[0])).values())) == 20
