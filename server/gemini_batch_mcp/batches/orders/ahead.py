"""The pass over an order's lines, begun while its source is still being hashed: each takes a processor of its own.

Which order it is nobody knows by then. What the pass writes lies in a directory of its own until somebody takes it;
where the order stands already, or is refused, the pass is given up.
"""

import secrets
import shutil
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Self

from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.batches.gauge import Doing, Gauge, Progress
from gemini_batch_mcp.batches.orders.counted import Counted
from gemini_batch_mcp.batches.orders.identity import IdentifiedOrder, reuses_by_itself
from gemini_batch_mcp.batches.orders.rendering import is_sent_as_it_is, write_lines
from gemini_batch_mcp.digests import RequestDigest
from gemini_batch_mcp.errors import BatchError, storage_errors
from gemini_batch_mcp.intake.apart.checking import LEAST_BYTES as LEAST_BYTES_APART
from gemini_batch_mcp.intake.apart.checking import Apart
from gemini_batch_mcp.intake.apart.surveyed import IDENTITIES, KEYS, REQUESTS, Surveyed, Wanted
from gemini_batch_mcp.intake.prices.estimate import limits_of
from gemini_batch_mcp.intake.prices.price_list import load_prices
from gemini_batch_mcp.intake.prices.survey import Limits, Surveyor
from gemini_batch_mcp.intake.requests.identities import Identities
from gemini_batch_mcp.intake.rows.choosing import Choose
from gemini_batch_mcp.intake.tables.folders import Folder
from gemini_batch_mcp.intake.tables.kinds import SourceKind
from gemini_batch_mcp.intake.validator.terms import Terms
from gemini_batch_mcp.intake.validator.world import CLOSED, World

#: Of a smaller file, the hash takes less than 20 ms (measured: 1.3 GB/s).
LEAST_BYTES: Final = 16 << 20
_COLUMNS: Final = "columns.parquet"


def survey_lines(
    identified: IdentifiedOrder,
    directory: Path,
    limits: Limits,
    gauge: Gauge,
    choose: Choose | None = None,
    world: World = CLOSED,
) -> Surveyed:
    """Write the order's lines into a directory; return them, and what the one pass has seen of them.

    How far it is, is read on the gauge.

    Raises:
        as `rendering.write_lines`.
    """
    apart = _checked_apart(identified, directory, limits, gauge, world, Apart())
    if apart is not None:
        return apart
    surveyor = Surveyor(identified.order.model, identified.order.task, limits=limits)
    return _written(identified, directory, surveyor, gauge, choose, world)


def _checked_apart(
    identified: IdentifiedOrder, directory: Path, limits: Limits, gauge: Gauge, world: World, apart: Apart
) -> Surveyed | None:
    """Have a large file of ready lines checked by another process; None where that is this one's to do.

    Raises:
        as `rendering.write_lines`, and Stopped.
    """
    order, path = identified.order, identified.path
    try:
        if path is None or path.stat().st_size < LEAST_BYTES_APART or not is_sent_as_it_is(identified):
            return None
    except (OSError, BatchError):
        return None  # Whoever reads it is told.
    gauge.show(Progress(Doing.CHECKING))
    wanted = Wanted(
        path=path,
        directory=directory,
        sha256=identified.content_sha256,
        model=order.model,
        task=order.task,
        limits=limits,
        is_open=world.is_open,
        is_cloud=world.is_cloud,
        takes_identities=_may_leave_out(identified),
        needs_schema=_needs_schema(identified),
    )
    try:
        found = apart.run(wanted, lambda rows: gauge.show(Progress(Doing.CHECKING, rows)))
    except BatchError:
        _remove_parts(directory)
        identified.refuse_changed()
        raise
    if found is None:
        _remove_parts(directory)
    identified.refuse_changed()
    return found


def _remove_parts(directory: Path) -> None:
    """Remove what another process has written that did not come to its end."""
    for name in (IDENTITIES, f"{KEYS}.part"):
        (directory / name).unlink(missing_ok=True)


def _written(
    identified: IdentifiedOrder,
    directory: Path,
    surveyor: Surveyor,
    gauge: Gauge,
    choose: Choose | None = None,
    world: World = CLOSED,
) -> Surveyed:
    requests, keys, columns = directory / REQUESTS, directory / KEYS, directory / _COLUMNS
    counted, order, may_leave_out = Counted(surveyor, gauge), identified.order, _may_leave_out(identified)
    identities = Identities(
        counted,
        directory / IDENTITIES,
        RequestDigest.of(order.model, order.task),
        is_wanted=may_leave_out,
        needs_schema=_needs_schema(identified),
        are_ours=identified.kind is SourceKind.TABLE,
    )
    try:
        lines = write_lines(
            identified,
            requests,
            keys,
            columns,
            onlooker=identities,
            on_read=counted.read if isinstance(identified.place, Folder) else counted.unpacked,
            choose=choose,
            world=world,
            is_hashed=not may_leave_out,
        )
    except BaseException:
        # As the lines: of an order that is refused, nothing stays.
        identities.discard()
        raise
    identities.close()
    return Surveyed.of(lines, surveyor, identities)


def _may_leave_out(identified: IdentifiedOrder) -> bool:
    """True for an order of which rows may be left out that are known. Of ready lines, that depends on what they ask."""
    order = identified.order
    by_itself = reuses_by_itself(order) or identified.kind is not SourceKind.TABLE
    return order.reuse == "always" or (order.reuse == "auto" and by_itself)


def _needs_schema(identified: IdentifiedOrder) -> bool:
    return identified.order.reuse == "auto" and not reuses_by_itself(identified.order)


class PassAhead:
    """One pass, to be used as a context: what nobody has taken at its end is given up."""

    def __init__(self, app: App, on_begin: Callable[[IdentifiedOrder], None] | None = None) -> None:
        self._app = app
        self._on_begin = on_begin
        self._directory = app.settings.home / "staged" / f"ahead-{secrets.token_hex(8)}"
        self._found: Future[Surveyed] = Future()
        #: What the figure depends on that it finds.
        self.limits = Limits()
        self._surveyor: _Stoppable | None = None
        self._apart = Apart()
        self._is_taken = False
        self._turn = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._turn:
            if self._surveyor is not None and not self._is_taken:
                self._surveyor.stop()
                self._apart.stop()
                if self._found.done():
                    self._remove()

    def begin(self, found: IdentifiedOrder) -> None:
        """Begin, where there is something to gain: on a large file of ready lines whose hash is not known.

        `found` is the order as far as it is known before its source is hashed. `on_begin` is told of it then, too.
        """
        path, order = found.path, found.order
        if (
            path is None
            or found.kind is not SourceKind.READY
            or order.limit_rows
            or order.sample_rows
            or order.generation_config
            or order.skip_invalid
            or self._app.hashes.knows(path)
        ):
            return
        try:
            if path.stat().st_size < LEAST_BYTES:
                return
            self._directory.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._directory.mkdir(mode=0o700)
            self.limits = limits_of(load_prices(self._app.settings.prices_path), order.model, datetime.now(UTC).date())
        except (OSError, BatchError):
            return  # Whoever needs it finds out, and is told.
        self._surveyor = _Stoppable(order.model, order.task, limits=self.limits)
        # A process that ends does not wait for it.
        threading.Thread(target=self._run, args=(found, self._surveyor), name="pass ahead", daemon=True).start()
        if self._on_begin is not None:
            self._on_begin(found)

    def take(self, identified: IdentifiedOrder, directory: Path, limits: Limits) -> Surveyed | None:
        """Wait for the end of the pass, and bring what it has written to `directory`; None where there is none.

        Raises:
            as `survey_lines`.
        """
        with self._turn:
            surveyor = self._surveyor
            if surveyor is None or surveyor.is_stopped or self._is_taken or self.limits != limits:
                return None
            self._is_taken = True
        requests = directory / REQUESTS
        try:
            found = self._found.result()
            lines = found.lines
            is_own_file = lines.path == identified.path
            with storage_errors("The requests could not be staged"):
                lines.keys_path.replace(directory / KEYS)
                if lines.identities_path is not None:
                    lines.identities_path.replace(directory / IDENTITIES)
                if not is_own_file:
                    lines.path.replace(requests)
        finally:
            self._remove()
        lines = replace(lines, keys_path=directory / KEYS)
        if lines.identities_path is not None:
            lines = replace(lines, identities_path=directory / IDENTITIES)
        lines = replace(lines, sha256=identified.content_sha256) if is_own_file else replace(lines, path=requests)
        return replace(found, lines=lines)

    def _run(self, found: IdentifiedOrder, surveyor: "_Stoppable") -> None:
        app, directory = self._app, self._directory
        world = app.world(found.order.model)
        try:
            apart = _checked_apart(found, directory, self.limits, app.gauge, world, self._apart)
            self._found.set_result(apart or _written(found, directory, surveyor, app.gauge, world=world))
        except BaseException as error:
            self._found.set_exception(error)
        with self._turn:
            if surveyor.is_stopped:
                self._remove()

    def _remove(self) -> None:
        shutil.rmtree(self._directory, ignore_errors=True)


class _GivenUp(Exception):
    """Nobody waits for the pass any more."""


class _Stoppable(Surveyor):
    """A surveyor that ends its pass once it has been stopped."""

    is_stopped = False

    def stop(self) -> None:
        """End the pass with the next lines."""
        self.is_stopped = True

    def see(self, piece: bytes, lines: Sequence[bytes], keys: bytes, before: int, terms: Terms | list[Terms]) -> None:
        """Look at the `lines` of a piece; see `Onlooker.see`."""
        if self.is_stopped:
            raise _GivenUp
        super().see(piece, lines, keys, before, terms)
