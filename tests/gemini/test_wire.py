"""Raw JSON from Gemini becomes domain values, whatever its details look like."""

from copy import deepcopy
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemini_batch_mcp.domain import JobError, JobState, RowCounts
from gemini_batch_mcp.gemini.wire import (
    file_from_wire,
    job_from_wire,
    job_name,
    jobs_from_wire,
    models_from_wire,
)
from support.extent import in_part, tries
from support.samples import JOB, RESULT_FILE, sample


def operation(**metadata: Any) -> dict[str, Any]:
    return {"name": JOB, "metadata": metadata}


# States


@pytest.mark.parametrize(("number", "task"), [("07", "generate"), ("18", "embed"), ("19", "embed")])
def test_a_job_says_what_its_requests_ask_for(number: str, task: str) -> None:
    assert job_from_wire(sample(number)).task == task
    assert job_from_wire(operation(state="BATCH_STATE_RUNNING")).task is None


@pytest.mark.parametrize(
    ("number", "state"),
    [
        ("05", JobState.PENDING),
        ("06", JobState.RUNNING),
        ("07", JobState.SUCCEEDED),
        ("11", JobState.FAILED),
        ("12", JobState.CANCELLED),
        ("13", JobState.EXPIRED),
        ("18", JobState.SUCCEEDED),
    ],
)
def test_the_state_of_every_sample_is_read(number: str, state: JobState) -> None:
    job = job_from_wire(sample(number))
    assert (job.name, job.state) == (JOB, state)


@pytest.mark.parametrize("state", list(JobState))
def test_both_prefixes_mean_the_same_state(state: JobState) -> None:
    suffix = state.removeprefix("JOB_STATE_")
    assert job_from_wire(operation(state=f"JOB_STATE_{suffix}")).state is state
    assert job_from_wire(operation(state=f"BATCH_STATE_{suffix}")).state is state


@pytest.mark.parametrize("wire_state", ["BATCH_STATE_DREAMING", "RUNNING", "job_state_running"])
def test_an_unknown_state_is_kept_beside_unspecified_and_is_not_terminal(wire_state: str) -> None:
    job = job_from_wire({**operation(state=wire_state), "done": True, "response": {"responsesFile": RESULT_FILE}})
    assert (job.state, job.wire_state, job.state.is_terminal) == (JobState.UNSPECIFIED, wire_state, False)


@pytest.mark.parametrize(
    ("rest", "state"),
    [
        ({}, JobState.UNSPECIFIED),
        ({"done": False}, JobState.UNSPECIFIED),
        ({"done": True}, JobState.UNSPECIFIED),
        ({"done": "true", "response": {"responsesFile": RESULT_FILE}}, JobState.UNSPECIFIED),
        ({"done": True, "response": {"responsesFile": RESULT_FILE}}, JobState.SUCCEEDED),
        ({"done": True, "error": {"code": 13}}, JobState.FAILED),
        ({"done": True, "error": {"code": 1, "message": "cancelled"}}, JobState.CANCELLED),
    ],
)
def test_a_job_that_states_nothing_is_told_by_its_end(rest: dict[str, Any], state: JobState) -> None:
    assert job_from_wire({"name": JOB, **rest}).state is state


# Counts, times, errors


def test_counts_and_times_of_a_running_job() -> None:
    job = job_from_wire(sample("06"))
    assert job.counts == RowCounts(total=1000, succeeded=612, failed=3, pending=385)
    assert job.created_at == datetime(2026, 11, 22, 9, 0, 1, 104882, tzinfo=UTC)
    assert job.updated_at == datetime(2026, 11, 22, 9, 41, 10, 550001, tzinfo=UTC)
    assert job.ended_at is None
    assert (job.display_name, job.model, job.input_file) == (
        "reviews-2026-11-22",
        "models/gemini-3.8-flash",
        "files/in8w2k5x",
    )


def test_omitted_counters_are_zero() -> None:
    assert job_from_wire(sample("07")).counts == RowCounts(total=1000, succeeded=1000)
    assert job_from_wire(sample("11")).counts == RowCounts(total=1000, failed=1000)


@pytest.mark.parametrize(
    ("value", "count"),
    [
        ("12", 12),
        (12, 12),
        (12.0, 12),
        (12.5, 0),
        (float("inf"), 0),
        (float("nan"), 0),
        (-3, 0),
        ("-3", 0),
        ("٣", 0),
        ("9" * 5000, 0),
        (10**30, 0),
        (True, 0),
        (None, 0),
        ([5], 0),
    ],
)
def test_a_counter_of_any_shape_is_a_number_or_zero(value: object, count: int) -> None:
    assert job_from_wire(operation(batchStats={"requestCount": value})).counts.total == count


@pytest.mark.parametrize(
    ("value", "moment"),
    [
        ("2026-11-22T09:00:01.999999999Z", datetime(2026, 11, 22, 9, 0, 1, 999999, tzinfo=UTC)),
        ("2026-11-22T10:00:01+01:00", datetime(2026, 11, 22, 9, 0, 1, tzinfo=UTC)),
        ("2026-11-22T09:00:01", datetime(2026, 11, 22, 9, 0, 1, tzinfo=UTC)),
        ("0001-01-01T00:00:00+23:00", None),
        ("yesterday", None),
        ("", None),
        (1763802001, None),
        ({"seconds": 5}, None),
    ],
)
def test_times_are_utc_and_anything_else_is_absent(value: object, moment: datetime | None) -> None:
    assert job_from_wire(operation(createTime=value)).created_at == moment


def test_the_error_of_a_failed_job_is_read_although_its_details_are_objects() -> None:
    job = job_from_wire(sample("11"))
    assert job.error == JobError(3, "Example: the input could not be processed.")


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (None, None),
        ({}, None),
        ([], None),
        (7, None),
        ("", None),
        ("out of order", JobError(0, "out of order")),
        ({"code": "13", "message": 5, "details": "none"}, JobError(13, "")),
        ({"message": "see https://x.example/?key=AIzaSyA1234567890"}, JobError(0, "see [link]")),
    ],
)
def test_an_error_of_any_shape_is_read_or_absent(value: object, error: JobError | None) -> None:
    assert job_from_wire({"name": JOB, "error": value}).error == error


# Output


@pytest.mark.parametrize("number", ["07", "08", "10", "18"])
def test_the_result_file_is_found_in_metadata_and_in_response(number: str) -> None:
    job = job_from_wire(sample(number))
    assert (job.responses_file, job.inlined_responses) == (RESULT_FILE, None)


@pytest.mark.parametrize(("number", "keys"), [("09", ["row-1", "row-2"]), ("19", ["e1", "e2"])])
def test_inlined_answers_are_found_below_both_nestings(number: str, keys: list[str]) -> None:
    job = job_from_wire(sample(number))
    assert job.responses_file == ""
    assert job.inlined_responses is not None
    assert [item["metadata"]["key"] for item in job.inlined_responses] == keys


def test_metadata_wins_over_response_unless_it_holds_nothing_usable() -> None:
    other = {"responsesFile": "files/batch-other"}
    mine = {"responsesFile": RESULT_FILE}
    assert job_from_wire({**operation(output=mine), "response": other}).responses_file == RESULT_FILE
    assert job_from_wire({**operation(output={"responsesFile": 5}), "response": other}).responses_file == (
        "files/batch-other"
    )


@pytest.mark.parametrize(
    ("output", "answers"),
    [
        ({"inlinedResponses": {"inlinedResponses": []}}, ()),
        ({"inlinedResponses": {}}, ()),
        ({"inlinedResponses": [{"response": {}}]}, ({"response": {}},)),
        ({"inlined_responses": {"inlined_responses": [{"a": 1}, "junk", None]}}, ({"a": 1}, {}, {})),
        ({"inlinedEmbedContentResponses": {"inlinedResponses": [{"a": 1}]}}, ({"a": 1},)),
        ({"inlinedResponses": {"inlinedResponses": "junk"}}, None),
        ({"inlinedResponses": 5}, None),
        ({}, None),
    ],
)
def test_inlined_answers_of_any_shape_keep_their_number(output: object, answers: object) -> None:
    assert job_from_wire(operation(output=output)).inlined_responses == answers


def test_snake_case_replies_read_the_same() -> None:
    def snake(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                "".join(f"_{c.lower()}" if c.isupper() else c for c in key): snake(item) for key, item in value.items()
            }
        return [snake(item) for item in value] if isinstance(value, list) else value

    for number in ("06", "07", "08", "12", "18"):
        assert job_from_wire(snake(sample(number))) == job_from_wire(sample(number))


# Lists


def test_a_list_page_gives_its_jobs_and_the_next_token() -> None:
    page = jobs_from_wire(sample("14"))
    assert [job.state for job in page.jobs] == [JobState.RUNNING, JobState.SUCCEEDED]
    assert page.next_page_token == "ChAIARIMOpaqueToken"


@pytest.mark.parametrize("raw", [{}, [], None, "text", {"operations": 5}, {"operations": [None, 5, {}, {"name": 7}]}])
def test_a_list_page_without_usable_jobs_is_empty(raw: object) -> None:
    assert jobs_from_wire(raw).jobs == ()


def test_one_odd_operation_does_not_hide_its_neighbours() -> None:
    raw = sample("14")
    raw["operations"].insert(1, {"name": "batches/../secrets"})
    assert len(jobs_from_wire(raw).jobs) == 2


# Whatever comes


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def paths_of(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(value, dict):
        children = list(value.items())
    elif isinstance(value, list):
        children = list(enumerate(value))
    else:
        children = []
    return [path] + [inner for key, child in children for inner in paths_of(child, (*path, key))]


@st.composite
def mutated_samples(draw: st.DrawFn) -> Any:
    """One of the samples with up to three members replaced by junk or taken out."""
    number = draw(st.sampled_from(["05", "06", "07", "08", "09", "10", "11", "12", "14", "18", "19", "43", "44", "45"]))
    value = deepcopy(sample(number))
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(paths_of(value)))
        if not path:
            return draw(JUNK)
        holder = value
        for key in path[:-1]:
            holder = holder[key]
        if draw(st.booleans()):
            holder[path[-1]] = draw(JUNK)
        else:
            del holder[path[-1]]
    return value


@in_part
@settings(max_examples=tries(100, 50))
@given(mutated_samples() | JUNK)
def test_no_reply_whatsoever_makes_the_readers_fail(raw: Any) -> None:
    job = job_from_wire(raw)
    assert isinstance(job.state, JobState)
    assert job.name in ("", job_name(job.name))
    assert min(job.counts.total, job.counts.succeeded, job.counts.failed, job.counts.pending) >= 0
    assert all(moment is None or moment.tzinfo is UTC for moment in (job.created_at, job.updated_at, job.ended_at))
    assert all(page_job.name for page_job in jobs_from_wire(raw).jobs)
    assert file_from_wire(raw).size_bytes >= 0
    models_from_wire(raw)
