"""Ready lines that lie in Cloud Storage: found, pinned to what they are now, checked and priced in a stream.

Nothing of them is kept on this machine but their keys and what the pass found: the job is made of the object itself.
"""

import fnmatch
import hashlib
import io
import shutil
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import anyio.from_thread
import msgspec

from gemini_batch_mcp import __version__
from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.batches.gauge import Doing, Progress
from gemini_batch_mcp.batches.in_place import SHOWN_REQUESTS, found_before, keep_found, preview_in_place, sweep_found
from gemini_batch_mcp.batches.ledger.entries import BatchEntry
from gemini_batch_mcp.batches.orders.appraising import ask_gemini
from gemini_batch_mcp.batches.orders.identity import IdentifiedOrder
from gemini_batch_mcp.batches.orders.preparing import Preview, is_copied
from gemini_batch_mcp.digests import Digest
from gemini_batch_mcp.domain import JsonObject, Order
from gemini_batch_mcp.errors import UsageError, storage_errors
from gemini_batch_mcp.intake.prices.estimate import Counting, Estimate, estimate, limits_of
from gemini_batch_mcp.intake.prices.likely import Evidence
from gemini_batch_mcp.intake.prices.price_list import PriceTable
from gemini_batch_mcp.intake.prices.survey import Survey, Surveyor
from gemini_batch_mcp.intake.requests.keys import KeyLog
from gemini_batch_mcp.intake.requests.passes import Report, run
from gemini_batch_mcp.text import plain_text
from gemini_batch_mcp.threads import in_thread

#: What is read of an object at once.
_PIECE_BYTES: Final = 8 * 1024**2
_KEYS: Final = "keys.jsonl"
_NOT_WRITTEN: Final = "What was found in the object could not be written down"


class CheckedObject(msgspec.Struct, frozen=True):
    """What a pass over an object found; its keys stand in a file of `directory`."""

    directory: str
    count: int
    size_bytes: int
    survey: Survey
    counting: Counting
    warnings: tuple[str, ...]
    first: tuple[dict[str, Any], ...]

    def estimate(self, prices: PriceTable, order: Order, evidence: Evidence | None) -> Estimate:
        """Return what a job of it may cost at the prices of today; see `in_place.Checked`."""
        return estimate(
            self.survey,
            self.counting,
            model=order.model,
            task=order.task,
            prices=prices,
            today=datetime.now(UTC).date(),
            evidence=evidence,
        )

    def notes(self) -> tuple[str, ...]:
        """Return nothing: its lines are sent as they are."""
        return ()


def is_sent_in_place(app: App, order: Order) -> bool:
    """True for an order whose source is an object in Cloud Storage of which its job is made."""
    return order.source.startswith("gs://") and not is_copied(app, order)


async def pinned(app: App, order: Order) -> Order:
    """Return an order whose source in Cloud Storage is one object, as it is now: `gs://bucket/name#generation`.

    Raises:
        UsageError: it lies outside of what may be read, or not exactly one object is meant.
        GeminiError: it is not there, or cannot be looked at.
    """
    source, _, generation = order.source.partition("#")
    if not is_sent_in_place(app, order) or not app.gateway.service.is_cloud:
        return order
    prefixes = tuple(root for root in app.stores.roots if root.startswith("gs://"))
    if not source.startswith(prefixes):
        raise UsageError(
            f"{plain_text(source, 200)} lies outside of what may be read: {', '.join(prefixes)}.",
            "Add its beginning (gs://bucket/path/) to GEMINI_BATCH_ROOTS, or put the file into the bucket.",
        )
    if any(sign in source for sign in "*?["):
        names = await app.gateway.list_files(source.split("*")[0].split("?")[0].split("[")[0])
        found = [name for name in names if fnmatch.fnmatchcase(name, source)]
        if len(found) != 1:
            some = f": {', '.join(found[:5])}" if found else ""
            raise UsageError(
                f"{len(found):,} objects match {plain_text(source, 200)}{some}. One order is one object.",
                "Order each by its own name, or put them together into one: gcloud storage objects compose.",
            )
        source, generation = found[0], ""
    if generation:
        return order
    return replace(order, source=await app.gateway.pin(source))


async def check_object(app: App, order: Order, prices: PriceTable) -> CheckedObject:
    """Read an order's object once, check every line, and find what its price depends on; or return what is known.

    Raises:
        RequestProblems: lines are wrong.
        UsageError: it is too large for one job, holds no requests, or would have to be mended.
        GeminiError: it could not be read.
    """
    text = f"{__version__}\0{order.source}\0{order.model}\0{app.settings.refuse_unknown}"
    digest = Digest()
    digest.update(text.encode())
    directory = app.settings.home / "objects" / str(digest).rpartition(":")[2]
    known = await in_thread(found_before, directory, CheckedObject)
    if known is not None and (directory / _KEYS).is_file():
        return known
    file = await app.gateway.get_file(order.source)
    service = app.gateway.service
    if file.size_bytes > service.file_bytes:
        raise UsageError(
            f"{order.source} has {file.size_bytes:,} bytes; one job takes up to {service.file_bytes:,}.",
            "Split it into several objects.",
        )
    found, requests = await in_thread(_read, app, order, prices, file.size_bytes, directory)
    if service.job_rows and found.count > service.job_rows:
        raise UsageError(
            f"{order.source} has {found.count:,} requests; one job takes up to {service.job_rows:,}.",
            "Split it into several objects.",
        )
    counting = await ask_gemini(app, order, requests) if requests else Counting()
    found = msgspec.structs.replace(found, counting=counting)
    await in_thread(keep_found, directory, found)
    return found


async def preview_object(app: App, order: Order) -> Preview:
    """Check and price an order of an object in Cloud Storage; see `preparing.preview_order`.

    Raises:
        UsageError: the order is wrong as a whole; problems of single lines are in the preview.
    """

    async def check(identified: IdentifiedOrder, prices: PriceTable) -> CheckedObject:
        return await check_object(app, identified.order, prices)

    return await preview_in_place(app, order, check)


def keep_keys(app: App, batch_id: str, found: CheckedObject) -> None:
    """Put an object's keys beside its batch, so that answers that do not come back are noticed.

    Raises:
        StorageError: they cannot be written.
    """
    files = app.files(batch_id)
    files.make_directory()
    with storage_errors(_NOT_WRITTEN):
        draft = files.keys().with_name(f"{files.keys().name}.part")
        shutil.copyfile(Path(found.directory) / _KEYS, draft)
        draft.replace(files.keys())


async def bring_lines(app: App, batch: BatchEntry) -> BatchEntry:
    """Bring the lines of a batch that was ordered from an object here, so that some of them can be sent again.

    Returns it as it is then, and any other batch as it is.

    Raises:
        NotFound: the object is gone, or has changed since.
        StorageError: there is no room for them.
    """
    if not batch.is_sent_in_place or app.files(batch.id).requests().is_file():
        return batch
    sha256 = await in_thread(_bring, app, batch)
    await in_thread(app.ledger.update_batch, batch.id, request_sha256=sha256)
    return replace(batch, request_sha256=sha256)


def _bring(app: App, batch: BatchEntry) -> str:
    destination, digest = app.files(batch.id).requests(), hashlib.sha256()
    draft = destination.with_name(f"{destination.name}.part")
    source = _RemoteFile(app, batch.source, batch.size_bytes)
    with storage_errors(_NOT_WRITTEN), draft.open("wb") as file:
        while piece := source.read():
            file.write(piece)
            digest.update(piece)
    with storage_errors(_NOT_WRITTEN):
        draft.replace(destination)
    return digest.hexdigest()


class _RemoteFile(io.RawIOBase):
    """An object as a file that is read once, from a worker thread."""

    def __init__(self, app: App, name: str, size_bytes: int) -> None:
        super().__init__()
        self._app = app
        self._name = name
        self._size_bytes = size_bytes
        self._position = 0

    def read(self, size: int = -1, /) -> bytes:
        """Return the next bytes, nothing at the end."""
        size_bytes = min(_PIECE_BYTES, self._size_bytes - self._position)
        if not size_bytes:
            return b""
        piece = anyio.from_thread.run(self._app.gateway.read_file, self._name, self._position, size_bytes)
        self._position += len(piece)
        self._app.gauge.show(Progress(Doing.CHECKING, self._position, self._size_bytes, "bytes of the object"))
        return piece


def _read(
    app: App, order: Order, prices: PriceTable, size_bytes: int, directory: Path
) -> tuple[CheckedObject, Mapping[int, JsonObject]]:
    sweep_found(directory.parent)
    with storage_errors(_NOT_WRITTEN):
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    surveyor = Surveyor(order.model, limits=limits_of(prices, order.model, datetime.now(UTC).date()))
    report, name = Report(), order.source
    first: list[dict[str, Any]] = []
    with KeyLog(directory / _KEYS) as keys:
        file: Any = _RemoteFile(app, name, size_bytes)
        for piece in run(file, order.task, keys, report, onlooker=surveyor, world=app.world(order.model)):
            if len(first) < SHOWN_REQUESTS:
                first += [msgspec.json.decode(line) for line in piece.split(b"\n")[:SHOWN_REQUESTS] if line]
        if report.problem_count:
            raise report.as_error(name)
        if report.differs:
            raise UsageError(
                f"{name} cannot be sent as it is: {' '.join(report.warnings())}",
                "Correct the object, or give a local copy of it: local files are mended.",
            )
        if not keys.count:
            raise UsageError(f"{name} holds no requests.", "Give an object of lines with `key` and `request`.")
        keys.keep()
    found = CheckedObject(
        directory=str(directory),
        count=keys.count,
        size_bytes=size_bytes,
        survey=surveyor.survey(),
        counting=Counting(),
        warnings=report.warnings(),
        first=tuple(first[:SHOWN_REQUESTS]),
    )
    return found, surveyor.requests()
