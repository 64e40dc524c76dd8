"""A store for each test: the sandbox's Cloud Storage, and in `make long` also an S3."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import pytest

from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.settings import Settings
from support.cloud.buckets import AWS_ENV, Bucket, SandboxBucket, Wire, moto, with_bucket, with_roots
from support.conversation import Conversation, converse
from support.extent import long


@dataclass(frozen=True)
class Place:
    """A bucket, the way to it, and the settings with which what is below `in/` may be used."""

    settings: Settings
    bucket: Bucket
    wire: Wire


@pytest.fixture(scope="session")
def s3_url() -> Iterator[str]:
    with moto() as url:
        yield url


@pytest.fixture(params=["gs", pytest.param("s3", marks=long)])
def place(
    request: pytest.FixtureRequest, settings: Settings, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Place]:
    if request.param == "gs":
        with sandbox.listening() as url:
            wire, bucket = Wire(url), SandboxBucket(sandbox)
            yield Place(with_roots(settings, f"{bucket.root}in/", url=wire.url), bucket, wire)
            wire.close()
        return
    url = request.getfixturevalue("s3_url")
    wire = Wire(url)
    for name, value in {**AWS_ENV, "AWS_ENDPOINT_URL": wire.url}.items():
        monkeypatch.setenv(name, value)
    at_s3 = with_bucket(url)
    yield Place(with_roots(settings, f"{at_s3.root}in/"), at_s3, wire)
    wire.close()


@pytest.fixture
def bucket(place: Place) -> Bucket:
    return place.bucket


@pytest.fixture
def wire(place: Place) -> Wire:
    return place.wire


@pytest.fixture
async def talk(place: Place, sandbox: Sandbox, era: str) -> AsyncIterator[Conversation]:
    async with converse(place.settings, sandbox, era) as conversation:
        yield conversation
