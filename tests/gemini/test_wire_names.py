"""Files, models and names out of raw JSON from Gemini, whatever its details look like."""

import base64
import hashlib
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemini_batch_mcp.gemini.wire import (
    file_from_wire,
    file_name,
    job_name,
    model_name,
    models_from_wire,
)
from support.samples import JOB, RESULT_FILE, sample

# Files and models


def test_an_uploaded_file_is_read_with_and_without_its_wrapper() -> None:
    wrapped = file_from_wire(sample("43"))
    assert wrapped == file_from_wire(sample("43")["file"])
    assert (wrapped.name, wrapped.size_bytes, wrapped.mime_type, wrapped.state) == (
        "files/in8w2k5x",
        20971520,
        "jsonl",
        "ACTIVE",
    )
    assert wrapped.expires_at == datetime(2026, 11, 24, 8, 58, 40, 470018, tzinfo=UTC)
    assert wrapped.sha256 == ""


DIGEST = hashlib.sha256(b"x").hexdigest()


@pytest.mark.parametrize(
    "value",
    [
        base64.b64encode(DIGEST.encode()).decode(),
        base64.b64encode(DIGEST.upper().encode()).decode(),
        base64.b64encode(bytes.fromhex(DIGEST)).decode(),
        DIGEST,
        DIGEST.upper(),
    ],
)
def test_a_hash_is_read_in_every_form_it_comes_in(value: str) -> None:
    assert file_from_wire({"sha256Hash": value}).sha256 == DIGEST


@pytest.mark.parametrize("value", ["", "%%%", "ZXhhbXBsZQ==", "é", 5, None, base64.b64encode(b"\xff" * 64).decode()])
def test_a_hash_that_is_none_is_empty(value: object) -> None:
    assert file_from_wire({"sha256Hash": value}).sha256 == ""


def test_models_carry_the_batch_calls_they_support() -> None:
    raw = {
        "models": [
            {
                "name": "models/gemini-a",
                "displayName": "A",
                "supportedGenerationMethods": ["generateContent", "batchGenerateContent", 5],
            },
            {
                "name": "models/embed-b",
                "supported_generation_methods": ["asyncBatchEmbedContent", "batchEmbedContents"],
            },
            {"name": 5},
            "junk",
        ],
        "nextPageToken": "t",
    }
    models, token = models_from_wire(raw)
    assert [(model.name, model.batch_methods) for model in models] == [
        ("models/gemini-a", ("batchGenerateContent",)),
        ("models/embed-b", ("asyncBatchEmbedContent",)),
    ]
    assert token == "t"


# Names


@pytest.mark.parametrize(
    "text",
    [
        JOB,
        f"  {JOB}\n",
        JOB.removeprefix("batches/"),
        RESULT_FILE,
        f"{RESULT_FILE}:download?alt=media",
        f"https://generativelanguage.googleapis.com/v1beta/{JOB}",
        f"https://generativelanguage.googleapis.com/v1beta/{JOB}:cancel",
        f"https://generativelanguage.googleapis.com/v1beta/{JOB}/?alt=json#top",
        f"https://generativelanguage.googleapis.com/download/v1beta/{RESULT_FILE}:download?alt=media",
    ],
)
def test_every_way_to_name_a_job_gives_its_name(text: str) -> None:
    assert job_name(text) == JOB


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "my reviews",
        "batches/",
        "batches/../x",
        "batches/a/b",
        "batches/a b",
        "batches/a%2Fb",
        "..",
        "files/in8w2k5x",
        "projects/1/locations/x/batchPredictionJobs/2",
        "a\x00b",
        "x" * 300,
        "batches/é",
    ],
)
def test_text_that_names_no_job_gives_none(text: str) -> None:
    assert job_name(text) is None


def test_file_and_model_names_are_read_or_refused() -> None:
    assert file_name(" files/in8w2k5x ") == "files/in8w2k5x"
    assert file_name("https://generativelanguage.googleapis.com/v1beta/files/in8-w2k5x") == "files/in8-w2k5x"
    assert file_name("in8w2k5x") is None
    assert file_name("files/../models") is None
    assert model_name("gemini-3.8-flash") == "models/gemini-3.8-flash"
    assert model_name("models/gemini-3.8-flash") == "models/gemini-3.8-flash"
    assert model_name("tunedModels/mine-1") == "tunedModels/mine-1"
    assert model_name("models/a/b") is None
    assert model_name("a..b") is None
    assert model_name("a?b") is None


@given(st.text())
def test_a_name_that_is_read_can_stand_in_a_path(text: str) -> None:
    for name in (job_name(text), file_name(text), model_name(text)):
        if name is not None:
            assert name.count("/") == 1
            assert not set(name) & set("?#%:&\\ ") and ".." not in name
