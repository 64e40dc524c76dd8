"""Vertex AI's wire → domain values, and ours → its: names of jobs and objects, labels, states, counts.

Shapes: the discovery document of aiplatform v1 (2026-11-06) and the samples 80 to 86 of `tests/support/wire-samples`.
Tolerant as `gemini.wire` is: a member of a wrong type counts as absent, nothing here raises.
"""

import hashlib
import re
from collections.abc import Mapping
from typing import Any, Final

from gemini_batch_mcp.domain import Job, JobError, JobState, JsonObject, Model, RowCounts
from gemini_batch_mcp.gemini.wire import JobPage, error_from_wire, moment_from_wire, read_count
from gemini_batch_mcp.json_members import as_list, as_object, as_text, member
from gemini_batch_mcp.text import plain_text, safe_text

#: The label of our jobs. A value may have 63 characters: the tag itself may have more, and others than labels take.
TAG_LABEL: Final = "gemini_batch_tag"
#: The longest display name of a job (the API reference of batchPredictionJobs).
MAX_DISPLAY_NAME_CHARS: Final = 128

_PROJECT: Final = r"[a-z0-9][a-z0-9.:-]{0,127}"
_JOB: Final = re.compile(rf"projects/{_PROJECT}/locations/[a-z0-9-]{{1,63}}/batchPredictionJobs/[0-9]{{1,30}}")
_BARE_ID: Final = re.compile(r"[0-9]{6,30}")
_OBJECT: Final = re.compile(r"gs://([a-z0-9][a-z0-9._-]{1,220}[a-z0-9])/([^\x00-\x1f\x7f]{1,1024})")
#: Our tag at the end of a display name: the batch's id, and which of its jobs it is.
_TAG: Final = re.compile(r"\[([^\[\]]{1,200})/(\d{1,9}\.\d{1,9})\]$")
_MODEL_PREFIX: Final = "publishers/google/models/"
#: What models of Google's are called that write answers; which of them take batches is in no list (assumed: these).
_ANSWERING: Final = re.compile(r"gemini-(?!.*(?:embedding|live|tts|native-audio))[A-Za-z0-9._-]{1,120}")
#: Members that countTokens takes.
_COUNTED: Final = ("contents", "systemInstruction", "tools", "generationConfig")
_STOPPED: Final = frozenset({JobState.CANCELLED, JobState.EXPIRED, JobState.FAILED})


def job_name(text: str, project: str, location: str) -> str | None:
    """Return the whole name of a job for its name, a link to it, or its bare number; None for other text."""
    text = re.split(r"[?#]", text.strip(), maxsplit=1)[0].rstrip("/")
    if "://" in text:
        text = text[found:] if (found := text.find("projects/")) >= 0 else text
    if _JOB.fullmatch(text):
        return text
    return f"projects/{project}/locations/{location}/batchPredictionJobs/{text}" if _BARE_ID.fullmatch(text) else None


def is_job_name(text: str) -> bool:
    """True for the whole name of a job."""
    return _JOB.fullmatch(text) is not None


def split_uri(uri: str) -> tuple[str, str] | None:
    """Return bucket and object of `gs://bucket/object`, None for other text."""
    found = _OBJECT.fullmatch(uri)
    return (found[1], found[2]) if found else None


def tag_of(display_name: str) -> str:
    """Return our tag in a display name, brackets included; empty for none."""
    found = _TAG.search(display_name)
    return found[0] if found else ""


def label_of(tag: str) -> str:
    """Return the value of the label that stands for a tag."""
    return hashlib.sha256(tag.encode()).hexdigest()[:40]


def folder_of(display_name: str) -> str:
    """Return where the answers of a job go below our folder, by its tag; by a digest of its name where it has none."""
    found = _TAG.search(display_name)
    if found is None:
        return f"jobs/{label_of(display_name)}"
    return f"{object_part(found[1])}/answers-{found[2]}"


def answers_table(requests_table: str) -> str:
    """Return the name of the table that takes the answers to the requests in a table of that name."""
    return f"{requests_table.removesuffix('_requests')}_answers"


def object_part(text: str) -> str:
    """Return a text as a part of an object's name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")[:100] or "unnamed"


def shortened(display_name: str) -> str:
    """Return a display name that Vertex AI takes: what is too much goes from before our tag."""
    tag = tag_of(display_name)
    return display_name.removesuffix(tag)[: MAX_DISPLAY_NAME_CHARS - len(tag)] + tag


def job_from_vertex(raw: object, *, asked_name: str = "") -> Job:
    """Read a BatchPredictionJob. `asked_name` is used when the reply carries no name of its own."""
    job = as_object(raw)
    name, wire_state = as_text(job.get("name")), as_text(member(job, "state"))
    state = JobState(wire_state) if wire_state in JobState.__members__.values() else JobState.UNSPECIFIED
    counts = _counts(as_object(member(job, "completionStats")), state)
    output = as_text(member(as_object(member(job, "outputInfo")), "gcsOutputDirectory"))
    table = _table(as_object(member(job, "outputInfo")))
    if state in _STOPPED and not counts.succeeded + counts.failed:
        # The directory is named whether or not anything is in it.
        output = table = ""
    return Job(
        name=name if is_job_name(name) else asked_name,
        state=state,
        display_name=plain_text(as_text(member(job, "displayName")), 512),
        model=_model_name(as_text(member(job, "model"))),
        counts=counts,
        error=error_from_wire(job.get("error")) or _partial(as_list(member(job, "partialFailures"))),
        created_at=moment_from_wire(member(job, "createTime")),
        updated_at=moment_from_wire(member(job, "updateTime")),
        ended_at=moment_from_wire(member(job, "endTime")),
        input_file=_input(as_object(member(job, "inputConfig"))),
        responses_file=output.rstrip("/") if split_uri(f"{output.rstrip('/')}/x") else plain_text(table, 300),
        wire_state=safe_text(wire_state, 80),
        task="generate",
    )


def jobs_from_vertex(raw: object) -> JobPage:
    """Read one page of `batchPredictionJobs.list`. What has no usable name is left out."""
    page = as_object(raw)
    jobs = (job_from_vertex(job) for job in as_list(member(page, "batchPredictionJobs")))
    return JobPage(tuple(job for job in jobs if job.name), as_text(member(page, "nextPageToken")))


def models_from_vertex(raw: object) -> tuple[tuple[Model, ...], str]:
    """Read one page of `publishers/google/models` → the models, and the next page's token."""
    page = as_object(raw)
    names = (as_text(as_object(entry).get("name")) for entry in as_list(member(page, "publisherModels")))
    bare = [name.removeprefix(_MODEL_PREFIX) for name in names if name.startswith(_MODEL_PREFIX)]
    models = (
        Model(f"models/{plain_text(name, 128)}", batch_methods=("batchGenerateContent",) if is_taken(name) else ())
        for name in bare
    )
    return tuple(models), as_text(member(page, "nextPageToken"))


def is_taken(model: str) -> bool:
    """True for the name of a model that is taken to answer in batches."""
    return _ANSWERING.fullmatch(model) is not None


def request_to_count(request: JsonObject) -> dict[str, Any]:
    """Return the body of a countTokens call for what `wire.request_to_count` has put together."""
    body = {name: value for name in _COUNTED if (value := member(request, name))}
    contents = [as_object(content) for content in as_list(body.get("contents"))]
    return {**body, "contents": [{"role": "user", **content} for content in contents]}


def _model_name(text: str) -> str:
    if text.startswith(_MODEL_PREFIX):
        return f"models/{plain_text(text.removeprefix(_MODEL_PREFIX), 128)}"
    return plain_text(text, 200)


def _table(info: Mapping[str, Any]) -> str:
    """Return the table with the answers as `bq://…`; it may be named apart from its dataset."""
    table, dataset = as_text(member(info, "bigqueryOutputTable")), as_text(member(info, "bigqueryOutputDataset"))
    whole = f"{dataset.removeprefix('bq://')}.{table}" if dataset and "." not in table else table.removeprefix("bq://")
    return f"bq://{whole}" if table else ""


def _input(config: Mapping[str, Any]) -> str:
    uris = member(as_object(member(config, "gcsSource")), "uris")
    first = uris if isinstance(uris, str) else next((uri for uri in as_list(uris) if isinstance(uri, str)), "")
    table = as_text(member(as_object(member(config, "bigquerySource")), "inputUri"))
    return plain_text(first or table, 1100)


def _counts(stats: Mapping[str, Any], state: JobState) -> RowCounts:
    """Read completionStats. The rows of a job that is still at work are not known: only what is done is counted.

    `incompleteCount` is -1 where Vertex AI does not know it.
    """
    done, failed, open_ = (
        read_count(member(stats, name)) for name in ("successfulCount", "failedCount", "incompleteCount")
    )
    total = done + failed + open_ if open_ or state is JobState.SUCCEEDED else 0
    return RowCounts(total=total, succeeded=done, failed=failed, pending=open_)


def _partial(failures: list[Any]) -> JobError | None:
    """Return the first partial failure, with how many more there are."""
    errors = [error for failure in failures if (error := error_from_wire(failure)) is not None]
    if not errors:
        return None
    more = f" (and {len(errors) - 1:,} more)" if len(errors) > 1 else ""
    return JobError(errors[0].code, f"Partial failure: {errors[0].message}{more}")
