"""What S3 refuses, and what the user is told: boto3 over HTTP with a service that answers as S3 is documented to."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.settings import Settings
from support.cloud.buckets import AWS_ENV
from support.conversation import Conversation, converse, newest
from support.extent import long

pytestmark = [pytest.mark.anyio, long]


@contextmanager
def answering(status: int, code: str, *, there: bool = False) -> Iterator[str]:
    """Give the address of a service that answers so. As S3 does, without a body to a HEAD; `there` says 404 to it."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            self.rfile.read(length)
            body = f"<Error><Code>{code}</Code><Message>http://not-to-be-shown</Message></Error>".encode()
            is_head = self.command == "HEAD"
            is_bucket = self.path.count("/") == 1
            self.send_response((200 if is_bucket else 404) if is_head and there else status)
            self.send_header("content-length", "0" if is_head else str(len(body)))
            self.end_headers()
            if not is_head:
                self.wfile.write(body)

        do_HEAD = do_GET = do_PUT = answer

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name, value in AWS_ENV.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (403, "AccessDenied", ("403, AccessDenied", "s3:GetObject")),
        (400, "ExpiredToken", ("are not accepted (400, ExpiredToken)", "aws sso login")),
        (403, "InvalidAccessKeyId", ("are not accepted", "aws configure")),
        (400, "AuthorizationHeaderMalformed", ("refused to describe", "AWS_REGION")),
        (404, "NoSuchBucket", ("found nothing when asked to find the bucket bucket", "Check the address")),
    ],
)
async def test_a_refusal_is_told_with_what_mends_it(
    settings: Settings,
    sandbox: Sandbox,
    aws: pytest.MonkeyPatch,
    era: str,
    status: int,
    code: str,
    words: tuple[str, ...],
) -> None:
    with answering(status, code) as url:
        aws.setenv("AWS_ENDPOINT_URL", url)
        async with converse(replace(settings, addresses=("s3://bucket/",)), sandbox, era) as talk:
            refused = await talk.refusal("preview_batch", source="s3://bucket/a.csv", prompt="{{a}}")
    for word in words:
        assert word in refused


async def test_a_service_that_is_not_there_and_settings_that_are_wrong_are_told(
    settings: Settings, sandbox: Sandbox, aws: pytest.MonkeyPatch, era: str
) -> None:
    with answering(200, "") as url:
        pass
    for name, value, words in (
        ("AWS_ENDPOINT_URL", url, "could not be reached"),
        ("AWS_ENDPOINT_URL", "nowhere", "A setting of AWS cannot be used"),
        ("AWS_PROFILE", "none", "no AWS credentials on this machine that can be used (ProfileNotFound)"),
    ):
        aws.setenv(name, value)
        async with converse(replace(settings, addresses=("s3://bucket/",)), sandbox, era) as talk:
            assert words in await talk.refusal("preview_batch", source="s3://bucket/a.csv", prompt="{{a}}")


async def test_a_store_without_conditional_writes_is_not_written_to(
    settings: Settings, sandbox: Sandbox, aws: pytest.MonkeyPatch, era: str
) -> None:
    async with converse(replace(settings, addresses=("s3://bucket/",)), sandbox, era) as talk:
        batch = await ordered(talk, sandbox)
        for status, code, words in (
            (501, "NotImplemented", "cannot accept s3://bucket/out.csv under the condition"),
            (507, "InsufficientStorage", "answered 507"),
        ):
            with answering(status, code, there=True) as url:
                aws.setenv("AWS_ENDPOINT_URL", url)
                async with converse(talk.settings, sandbox, era) as other:
                    refused = await other.refusal("get_results", batch=batch, save_to="s3://bucket/out.csv")
            assert words in refused


async def ordered(talk: Conversation, sandbox: Sandbox) -> str:
    created = await talk.call("create_batch", requests=[{"key": "a", "prompt": "hello"}])
    sandbox.finish(newest(sandbox))
    return str(created["batch_id"])
