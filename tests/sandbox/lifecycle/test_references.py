"""The embedded service and files in requests: a row whose file cannot be used fails, as Gemini's would."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from google.genai import errors, types

from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.sandbox.config import SandboxConfig
from gemini_batch_mcp.sandbox.lifecycle.references import References, file_state
from gemini_batch_mcp.sandbox.state import FileRecord
from support.services import MODEL, Clock, sdk
from support.sources import jpeg, pdf, png

CLOCK = Clock()
CONFIG = SandboxConfig(clock_ns=CLOCK, processing_seconds=10)
URI = "https://generativelanguage.googleapis.com/v1beta/"


def record(name: str, mime_type: str = "image/png", **values: Any) -> FileRecord:
    now = CLOCK.now_ns
    return FileRecord(name, values.pop("display_name", ""), mime_type, 9, "", "UPLOADED", now, now, **values)


FILES = {
    "files/here": record("files/here"),
    "files/late": record("files/late", expire_ns=CLOCK.now_ns),
    "files/slow": record("files/slow", "video/mp4"),
    "files/odd": record("files/odd", display_name="[[sandbox:file-failed]].pdf"),
}


def failure(*parts: dict[str, Any], row: dict[str, Any] | None = None, member: str = "contents") -> Any:
    content = {"parts": [{"text": "x"}, *parts]}
    request = {member: [content] if member == "contents" else content}
    line = json.dumps((row if row is not None else {"key": "k"}) | {"request": request}, separators=(",", ":"))
    found = References(FILES.get, CONFIG).failure(line.encode())
    return None if found is None else json.loads(found)


def named(name: str, mime_type: str = "image/png") -> dict[str, Any]:
    return {"fileData": {"fileUri": URI + name, "mimeType": mime_type}}


def held(content: bytes, mime_type: str) -> dict[str, Any]:
    return {"inlineData": {"mimeType": mime_type, "data": base64.b64encode(content).decode()}}


def test_files_that_are_there_and_contents_of_their_kind_are_fine() -> None:
    assert failure(named("files/here")) is None
    assert failure({"file_data": {"file_uri": "files/here"}}) is None
    assert failure(held(png(), "image/png"), held(jpeg(), "image/jpeg"), held(pdf(), "application/pdf")) is None
    assert failure(held(b"any", "audio/wav"), held(b"any", "text/plain")) is None
    assert failure({"fileData": {"fileUri": "https://www.youtube.com/watch?v=x"}}) is None
    assert failure(held(png(), "image/png"), member="content") is None
    assert References(FILES.get, CONFIG).failure(b"this is not even looked at") is None


@pytest.mark.parametrize(
    ("part", "code", "message"),
    [
        (named("files/never"), 7, "permission to access the File never or it may not exist"),
        (named("files/late"), 7, "permission to access the File late"),
        (named("files/slow", "video/mp4"), 9, "The File slow is not in an ACTIVE state"),
        (named("files/odd", "application/pdf"), 9, "The File odd is not in an ACTIVE state"),
        (named("files/here", "image/gif"), 3, "Unsupported MIME type: image/gif"),
        (held(b"MZ", "application/zip"), 3, "Unsupported MIME type: application/zip"),
        (held(jpeg(), "image/png"), 3, "Unable to process input image"),
        ({"inline_data": {"mime_type": "image/png", "data": "_-A"}}, 3, "Unable to process input image"),
        ({"inlineData": {"mimeType": "image/png", "data": "A"}}, 3, "no base64"),
    ],
)
def test_a_row_whose_file_cannot_be_used_fails_with_its_own_message(
    part: dict[str, Any], code: int, message: str
) -> None:
    found = failure(part)

    assert found["key"] == "k"
    assert found["error"]["code"] == code
    assert message in found["error"]["message"]


def test_an_inlined_row_that_fails_keeps_its_metadata() -> None:
    assert failure(named("files/never"), row={"metadata": {"key": "a"}})["metadata"] == {"key": "a"}
    assert set(failure(named("files/never"), row={})) == {"error"}


@pytest.mark.anyio
async def test_tokens_of_a_file_that_is_not_there_are_not_counted(sandbox: Sandbox) -> None:
    async with sdk(sandbox) as client:
        part = types.Part(file_data=types.FileData(file_uri=URI + "files/never", mime_type="image/png"))
        with pytest.raises(errors.ClientError, match="403 PERMISSION_DENIED"):
            await client.models.count_tokens(model=MODEL, contents=[part])
        part = types.Part.from_bytes(data=png(), mime_type="image/png")
        assert (await client.models.count_tokens(model=MODEL, contents=[part, "x"])).total_tokens == 1121


def test_video_and_sound_are_processed_for_a_while_and_pictures_are_not(tmp_path: Path) -> None:
    clock = Clock()
    config = SandboxConfig(clock_ns=clock, processing_seconds=10)

    assert [file_state(FILES[f"files/{name}"], config) for name in ("here", "slow", "odd")] == [
        "ACTIVE",
        "PROCESSING",
        "FAILED",
    ]
    clock.pass_seconds(10)
    assert file_state(FILES["files/slow"], config) == "ACTIVE"
