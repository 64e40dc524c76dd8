"""Attachments on their way to Gemini: each content once, continued after a failure, alive for long, never changed."""

from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import anyio.from_thread
import pytest

from gemini_batch_mcp.batches.app import App, open_app
from gemini_batch_mcp.batches.ledger.entries import NewBatch
from gemini_batch_mcp.batches.submitting import _attached_files
from gemini_batch_mcp.batches.submitting._attached_files import expiry_warnings, renew_attachments, upload_attachments
from gemini_batch_mcp.batches.work import Work
from gemini_batch_mcp.domain import Order
from gemini_batch_mcp.errors import AccessDenied, Rejected, StorageError, Unavailable, UsageError
from gemini_batch_mcp.gemini.wire import file_from_wire
from gemini_batch_mcp.intake.compose import write_rows
from gemini_batch_mcp.intake.files.planning import AttachmentPlan, plan_attachments
from gemini_batch_mcp.intake.tables.folders import find_source
from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.sandbox.config import OnCommand, SandboxConfig
from gemini_batch_mcp.settings import Settings
from support.sources import jpeg, mp4, pdf, png, write

pytestmark = pytest.mark.anyio
NEW = NewBatch(order_sha256="a" * 64, display_name="x", model="m", task="generate", delivery="file", source="x")


@pytest.fixture
async def app(settings: Settings, sandbox: Sandbox) -> AsyncIterator[App]:
    async with anyio.create_task_group() as group:
        opened = open_app(settings, Work(group), sandbox.transport())
        yield opened
        await opened.aclose()


@pytest.fixture
def batch_id(app: App) -> str:
    return app.ledger.reserve(NEW)[0].id


def planned(app: App, data: Path, text: str = "*", max_in_lines_bytes: int = 0) -> AttachmentPlan:
    source = find_source(text, app.guard)
    scratch = data.parent / "scratch"
    scratch.mkdir(exist_ok=True)
    return plan_attachments(
        source, column="path", guard=app.guard, scratch=scratch, max_in_lines_bytes=max_in_lines_bytes
    )


def replace_by_link(path: Path, target: Path) -> None:
    path.unlink()
    path.symlink_to(target)


def finalized(sandbox: Sandbox) -> int:
    return sum(request.route == "files.finalize" and request.status == 200 for request in sandbox.requests)


async def test_each_content_is_uploaded_once_and_named_by_all_its_rows(
    app: App, sandbox: Sandbox, data: Path, batch_id: str
) -> None:
    write(data, a_png=png(1), same_png=png(1), b_jpg=jpeg(), c_pdf=pdf())
    plan = planned(app, data)

    files = await upload_attachments(app, batch_id, plan)

    assert set(files) == {content.sha256 for content in plan.contents}
    assert finalized(sandbox) == 3
    assert Counter(file.mime_type for file in files.values()) == {"image/png": 1, "image/jpeg": 1, "application/pdf": 1}
    for sha256, file in files.items():
        assert file.sha256 == sha256
        assert file.uri.endswith(file.name)
        assert file.state == "ACTIVE"
    assert app.ledger.attachments(batch_id) == files
    # Asked again, nothing is sent: what is there is looked at.
    assert await upload_attachments(app, batch_id, plan) == files
    assert finalized(sandbox) == 3


@pytest.mark.parametrize(
    ("uri", "read"),
    [
        ("https://generativelanguage.googleapis.com/v1beta/files/abc", True),
        ("", False),
        (7, False),
        ("javascript:alert(1)", False),
        ('https://x/"files/abc', False),
        ("https://x/a b", False),
        ("https://x/\n", False),
        ("https://" + "x" * 600, False),
    ],
)
async def test_a_files_uri_is_read_when_it_is_a_link(uri: object, read: bool) -> None:
    assert file_from_wire({"name": "files/abc", "uri": uri}).uri == (uri if read else "")


async def test_what_is_inlined_is_not_uploaded(app: App, sandbox: Sandbox, data: Path, batch_id: str) -> None:
    write(data, a_png=png(1))

    assert await upload_attachments(app, batch_id, planned(app, data, max_in_lines_bytes=10_000)) == {}
    assert sandbox.requests == ()


async def test_no_more_than_a_few_uploads_are_under_way_at_once(
    settings: Settings, sandbox: Sandbox, data: Path
) -> None:
    for number in range(12):
        (data / f"{number}.png").write_bytes(png(number))
    steps = Counter[str]()
    most = 0

    def look_on(step: str) -> None:
        nonlocal most
        steps[step] += 1
        most = max(most, steps["upload:before"] - steps["upload:after"])

    async with anyio.create_task_group() as group:
        app = open_app(settings, Work(group), sandbox.transport(), hook=look_on)
        batch_id = app.ledger.reserve(NEW)[0].id
        assert len(await upload_attachments(app, batch_id, planned(app, data))) == 12
        await app.aclose()
    assert (most, steps["upload:after"]) == (4, 12)


async def test_after_a_failure_only_what_is_missing_is_sent(
    app: App, sandbox: Sandbox, data: Path, batch_id: str
) -> None:
    for number in range(9):
        (data / f"{number}.png").write_bytes(png(number))
    plan = planned(app, data)
    sandbox.fail_next("files.start", status=400, skip=5)

    with pytest.raises(Rejected):
        await upload_attachments(app, batch_id, plan)

    sent = finalized(sandbox)
    assert 5 <= sent < 9
    assert len(app.ledger.attachments(batch_id)) == sent
    files = await upload_attachments(app, batch_id, plan)
    assert len(files) == 9
    assert finalized(sandbox) == 9


async def test_a_passing_fault_is_overcome(app: App, sandbox: Sandbox, data: Path, batch_id: str) -> None:
    write(data, a_png=png(1), b_png=png(2))
    sandbox.fail_next("files.start", status=503, times=2)
    sandbox.cut_next("files.finalize", when="after")

    assert len(await upload_attachments(app, batch_id, planned(app, data))) == 2


async def test_a_lasting_fault_is_told_after_several_tries(
    app: App, sandbox: Sandbox, data: Path, batch_id: str
) -> None:
    write(data, a_png=png(1))
    sandbox.fail_next("files.start", status=503, times=100)

    with pytest.raises(Unavailable):
        await upload_attachments(app, batch_id, planned(app, data))
    tries = sum(request.route == "files.start" for request in sandbox.requests)
    assert 3 <= tries <= 12


async def test_what_vanishes_before_the_job_could_end_is_sent_again_and_warned_of(
    app: App, sandbox: Sandbox, data: Path, batch_id: str
) -> None:
    write(data, a_png=png(1), b_png=png(2))
    plan = planned(app, data)
    first = await upload_attachments(app, batch_id, plan)
    now = datetime.now(UTC)
    assert expiry_warnings(first, now) == ()
    old, gone = (content.sha256 for content in plan.contents)
    app.ledger.record_attachment(batch_id, old, replace(first[old], expires_at=now + timedelta(hours=46.9)))
    sandbox.expire_file(first[gone].name)

    second = await upload_attachments(app, batch_id, plan)

    assert finalized(sandbox) == 4
    assert {file.name for file in first.values()}.isdisjoint(file.name for file in second.values())
    assert expiry_warnings(second, now + timedelta(hours=2, minutes=30)) == (
        "2 attached files expire at Gemini before the job's own 48 hours are over, the first in about 45 hours: "
        "rows that run later than that fail.",
    )
    one = {old: second[old], gone: replace(second[gone], expires_at=None)}
    assert expiry_warnings(one, now + timedelta(hours=60))[0].startswith(
        "1 attached file expires at Gemini before the job's own 48 hours are over, in about 0 hours"
    )


async def test_renewing_says_which_references_lead_where_now(
    app: App, sandbox: Sandbox, data: Path, batch_id: str
) -> None:
    write(data, a_png=png(1), b_png=png(2))
    plan = planned(app, data)
    first = await upload_attachments(app, batch_id, plan)
    assert await renew_attachments(app, batch_id, plan) == {}
    lost = plan.contents[0].sha256
    await app.gateway.delete_file(first[lost].name)

    renewed = await renew_attachments(app, batch_id, plan)

    assert list(renewed) == [first[lost].uri]
    assert renewed[first[lost].uri] == app.ledger.attachments(batch_id)[lost].uri


async def test_a_file_that_changed_after_it_was_looked_at_is_never_finalized(
    app: App, sandbox: Sandbox, data: Path, batch_id: str
) -> None:
    write(data, a_png=png(1), b_png=png(2), c_png=png(3), d_png=png(4))
    secret = data.parent / "secret.png"
    secret.write_bytes(png(9))
    changes: dict[str, Callable[[Path], object]] = {
        "a.png": lambda path: path.write_bytes(png(7)),
        "b.png": lambda path: path.write_bytes(png(2)[:-4]),
        "c.png": lambda path: replace_by_link(path, secret),
        "d.png": lambda path: replace_by_link(path, data / "a.png"),
    }
    for name, change in changes.items():
        plan = planned(app, data, f"[{name[0]}].png")
        change(data / name)
        with pytest.raises((UsageError, StorageError), match=r"changed|outside"):
            await upload_attachments(app, batch_id, plan)
    assert finalized(sandbox) == 0
    assert not app.ledger.attachments(batch_id)


async def test_a_file_that_has_gone_is_told(app: App, data: Path, batch_id: str) -> None:
    write(data, a_png=png(1))
    plan = planned(app, data)
    (data / "a.png").unlink()

    with pytest.raises(UsageError, match=r"There is no file '.*a\.png'"):
        await upload_attachments(app, batch_id, plan)


async def test_a_file_that_was_uploaded_before_is_looked_at(
    app: App, sandbox: Sandbox, data: Path, batch_id: str, tmp_path: Path
) -> None:
    write(data, local_png=png(1))
    name = (
        await app.gateway.upload(data / "local.png", size_bytes=len(png(1)), display_name="x", mime_type="image/png")
    ).name
    (data / "local.png").unlink()
    source = data / "t.csv"
    source.write_text(f"photo,id\n{name},1\n{name},2\n", encoding="utf-8")
    plan = plan_attachments(source, column="photo", guard=app.guard, scratch=tmp_path)

    files = await upload_attachments(app, batch_id, plan)

    assert (files[name].mime_type, files[name].name) == ("image/png", name)
    assert app.ledger.attachments(batch_id) == {}
    sandbox.expire_file(name)
    with pytest.raises(UsageError, match=f"{name} is not in the Files API"):
        await upload_attachments(app, batch_id, plan)
    sandbox.fail_next("files.get", status=403)
    with pytest.raises(UsageError, match="not in this key's project"):
        await upload_attachments(app, batch_id, plan)
    sandbox.fail_next("files.get", status=401)
    with pytest.raises(AccessDenied):
        await upload_attachments(app, batch_id, plan)


async def test_a_cancelled_call_keeps_what_was_sent(settings: Settings, tmp_path: Path, data: Path) -> None:
    for number in range(6):
        (data / f"{number}.png").write_bytes(png(number))
    scope = anyio.CancelScope()
    recorded: list[str] = []

    def cancel_after_two(step: str) -> None:
        if step == "ledger.record_attachment:after":
            recorded.append(step)
            if len(recorded) == 2:
                anyio.from_thread.run_sync(scope.cancel)

    async for app, _, batch_id in service(settings, tmp_path, SandboxConfig(pace=OnCommand()), cancel_after_two):
        plan = planned(app, data)
        with scope:
            await upload_attachments(app, batch_id, plan)

        assert scope.cancelled_caught
        assert 2 <= len(app.ledger.attachments(batch_id)) < 6
        await upload_attachments(app, batch_id, plan)
        assert len(app.ledger.attachments(batch_id)) == 6


async def service(
    settings: Settings, tmp_path: Path, config: SandboxConfig, hook: Callable[[str], None] | None = None
) -> AsyncIterator[tuple[App, Sandbox, str]]:
    with Sandbox(tmp_path / "service", config) as sandbox:
        async with anyio.create_task_group() as group:
            app = open_app(settings, Work(group), sandbox.transport(), hook=hook)
            yield app, sandbox, app.ledger.reserve(NEW)[0].id
            await app.aclose()


async def test_a_video_is_waited_for_until_gemini_has_looked_at_it(
    settings: Settings, tmp_path: Path, data: Path
) -> None:
    write(data, a_mp4=mp4(), b_png=png(1))
    config = SandboxConfig(pace=OnCommand(), processing_seconds=0.1)
    async for app, sandbox, batch_id in service(settings, tmp_path, config):
        files = await upload_attachments(app, batch_id, planned(app, data))

        assert {file.state for file in files.values()} == {"ACTIVE"}
        assert finalized(sandbox) == 2
        assert any(request.route == "files.get" for request in sandbox.requests)


async def test_a_video_that_takes_too_long_is_not_sent_again(
    settings: Settings, tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(data, a_mp4=mp4())
    monkeypatch.setattr(_attached_files, "_PROCESSING", timedelta(seconds=0.05))
    config = SandboxConfig(pace=OnCommand(), processing_seconds=0.3)
    async for app, sandbox, batch_id in service(settings, tmp_path, config):
        plan = planned(app, data)
        with pytest.raises(Unavailable, match=r"Gemini has been processing the file a\.mp4 for"):
            await upload_attachments(app, batch_id, plan)
        monkeypatch.setattr(_attached_files, "_PROCESSING", timedelta(seconds=5))

        assert (await upload_attachments(app, batch_id, plan))[plan.contents[0].sha256].state == "ACTIVE"
        assert finalized(sandbox) == 1


async def test_a_file_that_gemini_cannot_make_sense_of_is_named(app: App, data: Path, batch_id: str) -> None:
    (data / "[[sandbox:file-failed]].mp4").write_bytes(mp4())
    plan = planned(app, data)

    for _ in range(2):
        with pytest.raises(Rejected, match=r"could not process the file \[\[sandbox:file-failed\]\]\.mp4"):
            await upload_attachments(app, batch_id, plan)


async def test_rows_with_uploaded_and_with_inlined_files_are_answered(
    app: App, sandbox: Sandbox, data: Path, batch_id: str, tmp_path: Path
) -> None:
    write(data, a_png=png(1), b_pdf=pdf(), c_png=png(2, 100_000))
    order = Order(prompt="What is it?", attach="path", key_column="name")
    plan = planned(app, data, "*", max_in_lines_bytes=2000)
    assert {content.mode for content in plan.contents} == {"inline", "upload"}
    files = await upload_attachments(app, batch_id, plan)
    lines = write_rows(
        find_source("*", app.guard),
        tmp_path / "r",
        order=order,
        keys_path=tmp_path / "k",
        attachments=plan,
        uploaded=files,
    )
    # One more row, whose file is gone when it runs.
    preview = write_rows(
        find_source("c.*", app.guard),
        tmp_path / "p",
        order=replace(order, key_column=""),
        keys_path=tmp_path / "pk",
        attachments=planned(app, data, "c.*"),
    )
    whole = lines.path.read_bytes() + preview.path.read_bytes()
    (tmp_path / "whole").write_bytes(whole)
    uploaded = await app.gateway.upload(tmp_path / "whole", size_bytes=len(whole), display_name="whole")
    job = await app.gateway.create_from_file(
        model="gemini-3-flash-preview", file_name=uploaded.name, display_name="d", task="generate"
    )
    sandbox.finish(job.name)

    counts = (await app.gateway.get_job(job.name)).counts
    assert (counts.succeeded, counts.failed) == (3, 1)
