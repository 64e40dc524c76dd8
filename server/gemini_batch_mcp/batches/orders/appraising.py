"""An order's checked lines and what they may cost, found out in one pass and kept until a batch takes them.

Lines that have to be written are staged under the order's fingerprint, and so are the facts about every order: whoever
asks for its figure, in whichever process, is told the same.
"""

import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from gemini_batch_mcp.batches.app import App, BatchFiles
from gemini_batch_mcp.batches.orders._sparing import (
    AnswersChanged,
    answers_now,
    asked_elsewhere,
    found_facts,
    with_what_is_sent,
)
from gemini_batch_mcp.batches.orders._staging import FACTS_NAME, SAMPLE_NAME, clear, held, is_clear, sweep_others
from gemini_batch_mcp.batches.orders.ahead import PassAhead, survey_lines
from gemini_batch_mcp.batches.orders.identity import IdentifiedOrder
from gemini_batch_mcp.batches.orders.pricing import (
    Facts,
    evidence_for,
    priced,
    read_facts,
    read_prices,
    tier_of,
    write_facts,
)
from gemini_batch_mcp.digests import RequestDigest
from gemini_batch_mcp.domain import JsonObject, Order
from gemini_batch_mcp.errors import StillPreparing, storage_errors
from gemini_batch_mcp.intake.prices.estimate import Counting, Estimate, count, limits_of
from gemini_batch_mcp.intake.prices.likely import Evidence
from gemini_batch_mcp.intake.prices.price_list import PriceTable, load_prices
from gemini_batch_mcp.intake.prices.survey import Limits
from gemini_batch_mcp.intake.request_files import RequestFile, Skipped
from gemini_batch_mcp.intake.requests.identities import write_identities
from gemini_batch_mcp.intake.requests.skipping import remove_skipped
from gemini_batch_mcp.intake.tables.kinds import SourceKind
from gemini_batch_mcp.results.reuse.spared_files import SparedFiles
from gemini_batch_mcp.results.reuse.taking import are_there, take_answers
from gemini_batch_mcp.threads import in_thread

_FAILED: Final = "The requests could not be staged"
#: How often an order is priced whose answers change meanwhile.
_TRIES: Final = 5
_NOT_THERE_YET: Final = "Gemini cannot count files that have not been uploaded yet."


@dataclass(frozen=True, slots=True)
class Appraisal:
    """An order's checked lines, and the one figure for them. `whole` is that of all rows, where some are not sent.

    `notes` say what of it another batch is being asked just now.
    """

    request_file: RequestFile
    estimate: Estimate
    whole: Estimate | None = None
    notes: tuple[str, ...] = ()


async def appraise(
    app: App,
    identified: IdentifiedOrder,
    wait_seconds: float | None,
    ahead: PassAhead | None = None,
    *,
    is_to_take: bool = False,
) -> Appraisal:
    """Return the order's lines and its figure; make them in one pass unless they are kept. It may have begun `ahead`.

    With `is_to_take`, the answers that it takes from earlier batches are copied: from then on they are sure.

    Gemini is asked to count at most 20 lines, for at most 15 seconds. Where it cannot be asked, the offline rule is
    what is kept.

    Raises:
        StillPreparing: it takes longer than `wait_seconds` (None: never), and goes on in the background.
        BatchError: as `stage_lines`.
    """
    found = await _appraised(app, identified, wait_seconds, ahead, is_to_take)
    return replace(found, notes=await in_thread(asked_elsewhere, app, identified, found.request_file))


async def _appraised(
    app: App, identified: IdentifiedOrder, wait_seconds: float | None, ahead: PassAhead | None, is_to_take: bool
) -> Appraisal:
    order = identified.order
    prices = (await read_prices(app)).at(tier_of(app.settings, order.delivery, order.task))
    limits = limits_of(prices, order.model, datetime.now(UTC).date())
    known = await in_thread(_up_to_date, app, identified, limits)
    evidence = await in_thread(evidence_for, app, identified)
    is_ready = known is not None and known.counting is not None and not (is_to_take and _lacks_answers(known))
    if known is not None and is_ready:
        return _appraisal(prices, order, known, evidence)
    found: list[Facts] = []

    async def work() -> None:
        facts, requests = await in_thread(_stage, app, identified, ahead, is_to_take)
        if facts.counting is None:
            counting = await _ask(app, identified, requests)
            facts = await in_thread(_keep_counting, app, identified, facts, counting)
        found.append(facts)

    if not await app.run(f"stage {identified.sha256}", work, wait_seconds=wait_seconds):
        raise StillPreparing(
            f"The requests are still being prepared{app.gauge.reached()}; nothing has been submitted yet.",
            "Make the same call again in half a minute.",
        )
    if not found:
        # Somebody else's work was waited for: what it found is kept.
        await work()
    return _appraisal(prices, order, found[0], evidence)


def _appraisal(prices: PriceTable, order: Order, facts: Facts, evidence: Evidence | None) -> Appraisal:
    whole = None
    if facts.all_rows is not None:
        whole = priced(prices, order, replace(facts, survey=facts.all_rows, counting=None), evidence)
    figure = priced(prices, order, facts, evidence)
    if not facts.request_file.count:
        figure = replace(figure, basis="Nothing is sent: every row is answered.", warnings=())
    return Appraisal(facts.request_file, figure, whole)


def _lacks_answers(facts: Facts) -> bool:
    """True while what is sent, or whose answers the other rows get, is not written down."""
    spared = facts.request_file.spared
    has_taken = spared is None or not spared.reused_count or SparedFiles(spared.directory).taken_path.is_file()
    return facts.whole is not None or not has_taken


async def ask_gemini(app: App, order: Order, requests: Mapping[int, JsonObject]) -> Counting:
    """Have Gemini count a few requests; see `estimate.count`."""

    async def count_one(request: JsonObject) -> int:
        return await app.gateway.count_tokens(model=order.model, requests=[request], task=order.task)

    return await count(requests, count_one)


async def _ask(app: App, identified: IdentifiedOrder, requests: Mapping[int, JsonObject]) -> Counting:
    if not requests:
        return Counting()
    if identified.attachments is not None and identified.attachments.uploads:
        return Counting(failure=_NOT_THERE_YET)
    return await ask_gemini(app, identified.order, requests)


def stage_lines(app: App, identified: IdentifiedOrder) -> RequestFile:
    """Return the order's checked request lines as they were staged, writing them unless they are.

    `path` is the user's own file where that can be sent as it is.

    Raises:
        RequestProblems: lines or rows are wrong.
        UsageError: a template, a schema or the table as a whole is wrong.
        StorageError: the state directory cannot be written.
    """
    directory = _staging_directory(app, identified)
    with held(directory):
        return _read_or_write(app, identified, directory).request_file


def take_staged_lines(app: App, identified: IdentifiedOrder, files: BatchFiles) -> RequestFile:
    """Bring the order's lines to where a batch keeps them, out of the staging area if they are there.

    What belongs to them comes along: their keys, the columns of their source where it has any, and which rows are not
    sent. Where that is so, all of it stays staged as well until it is discarded: whatever happens, the same rows are
    sent.

    Raises:
        as `stage_lines`.
    """
    directory = _staging_directory(app, identified)
    with held(directory):
        request_file = _read_or_write(app, identified, directory).request_file
        if request_file.identities_path is None:
            _write_identities(identified, request_file.path, files.identities)
        taken = replace(request_file, keys_path=files.keys())
        if request_file.path.parent == directory:
            taken = replace(taken, path=files.requests())
        put: Callable[[Path, Path], None] = _move
        with storage_errors(_FAILED):
            if request_file.spared is not None:
                take_answers(request_file.spared)
                put = _link
            else:
                # Facts first: what is half moved counts as not staged.
                (directory / FACTS_NAME).unlink(missing_ok=True)
                (directory / SAMPLE_NAME).unlink(missing_ok=True)
            for left in files.spared.kept:
                left.unlink(missing_ok=True)
            if taken.path == files.requests():
                put(request_file.path, taken.path)
            put(request_file.keys_path, taken.keys_path)
            taken = replace(taken, skipped=_take_skipped(request_file.skipped, files.directory, put))
            files.source_columns.unlink(missing_ok=True)
            if request_file.columns_path is not None:
                put(request_file.columns_path, files.source_columns)
                taken = replace(taken, columns_path=files.source_columns)
            if request_file.identities_path is not None:
                put(request_file.identities_path, files.identities)
            taken = replace(taken, identities_path=files.identities)
            _keep_schema(request_file, files)
            if (spared := request_file.spared) is not None:
                for path in SparedFiles(spared.directory).kept:
                    if path.is_file():
                        put(path, files.directory / path.name)
                taken = replace(taken, spared=replace(spared, directory=files.directory))
    # The directory and its lock stay until they are swept: somebody may be waiting for it.
    return taken


def take_identities(app: App, identified: IdentifiedOrder, files: BatchFiles) -> None:
    """Bring the identities of an order's requests, and the schema that they ask for, to where a batch keeps them.

    Its lines are written anew.

    Raises:
        as `stage_lines`.
    """
    directory = _staging_directory(app, identified)
    with held(directory):
        lines = _read_or_write(app, identified, directory).request_file
        if lines.identities_path is None:
            _write_identities(identified, lines.path, files.identities)
        with storage_errors(_FAILED):
            if lines.identities_path is not None:
                _link(lines.identities_path, files.identities)
            _keep_schema(lines, files)


def _keep_schema(request_file: RequestFile, files: BatchFiles) -> None:
    files.asked_schema.unlink(missing_ok=True)
    if request_file.asked_schema:
        files.asked_schema.write_bytes(msgspec.json.encode(request_file.asked_schema))


def _write_identities(identified: IdentifiedOrder, requests: Path, path: Path) -> None:
    """Write down the identities of requests that take no answers, and may give theirs to others."""
    order, draft = identified.order, path.with_name(f"{path.name}.part")
    digest = RequestDigest.of(order.model, order.task)
    write_identities(requests, draft, digest, are_ours=identified.kind is SourceKind.TABLE)
    with storage_errors(_FAILED):
        draft.replace(path)


def _move(source: Path, destination: Path) -> None:
    source.replace(destination)


def _link(source: Path, destination: Path) -> None:
    """Give a file a second name; where that cannot be, a copy."""
    draft = destination.with_name(f"{destination.name}.part")
    draft.unlink(missing_ok=True)
    try:
        os.link(source, draft)
    except OSError:
        shutil.copyfile(source, draft)
    draft.replace(destination)


def _take_skipped(skipped: Skipped | None, directory: Path, put: Callable[[Path, Path], None]) -> Skipped | None:
    """Bring what was left out to where a batch keeps it."""
    remove_skipped(directory)
    if skipped is None:
        return None
    kept = replace(skipped, path=directory / Skipped.NAME, keys_path=directory / Skipped.KEYS_NAME)
    put(skipped.keys_path, kept.keys_path)
    put(skipped.path, kept.path)
    return kept


def discard_staged_lines(app: App, identified: IdentifiedOrder) -> None:
    """Remove an order's staged lines, and what a killed process left of them: a batch has its own.

    No create will come for these.
    """
    directory = _staging_directory(app, identified)
    if is_clear(directory):
        return
    with held(directory):
        clear(directory)


def _stage(
    app: App, identified: IdentifiedOrder, ahead: PassAhead | None, is_to_take: bool
) -> tuple[Facts, dict[int, JsonObject]]:
    """Return what is known of the order's lines, and the requests that Gemini is still to be asked about."""
    directory = _staging_directory(app, identified)
    with held(directory):
        facts = _current_facts(app, identified, directory, ahead, is_to_take)
        if is_to_take and facts.request_file.spared is not None:
            take_answers(facts.request_file.spared)
        try:
            sample = msgspec.json.decode((directory / SAMPLE_NAME).read_bytes(), type=dict[int, Any])
        except (OSError, msgspec.MsgspecError):
            sample = {}
        return facts, sample


def _current_facts(
    app: App, identified: IdentifiedOrder, directory: Path, ahead: PassAhead | None, is_to_take: bool
) -> Facts:
    for _ in range(_TRIES - 1):
        # Another batch may just have been collected: what that leaves to be sent is priced anew.
        with suppress(AnswersChanged):
            return _read_or_write(app, identified, directory, ahead, is_to_be_current=True, is_to_be_sent=is_to_take)
    return _read_or_write(app, identified, directory, ahead, is_to_be_current=True, is_to_be_sent=is_to_take)


def _keep_counting(app: App, identified: IdentifiedOrder, facts: Facts, counting: Counting) -> Facts:
    """Write down what Gemini counted, unless somebody has done so before: then that is what holds."""
    directory = _staging_directory(app, identified)
    with held(directory):
        known = read_facts(directory / FACTS_NAME)
        if known is not None and known.counting is not None:
            return known
        facts = replace(facts, counting=counting)
        if known is not None:
            write_facts(directory / FACTS_NAME, facts)
        with storage_errors(_FAILED):
            (directory / SAMPLE_NAME).unlink(missing_ok=True)
        return facts


def _read_or_write(
    app: App,
    identified: IdentifiedOrder,
    directory: Path,
    ahead: PassAhead | None = None,
    *,
    is_to_be_current: bool = False,
    is_to_be_sent: bool = True,
) -> Facts:
    """Return what is known of lines staged in a directory that is held, or write them. Raises as `stage_lines`.

    What of the answers of earlier batches is taken stays as it is, unless it `is_to_be_current`. Unless they are
    `to_be_sent`, lines that are sent need not be written apart from the others.
    """
    order = identified.order
    limits = limits_of(load_prices(app.settings.prices_path), order.model, datetime.now(UTC).date())
    known = _whole_facts(directory, limits)
    if known is not None and (not is_to_be_current or _is_current(app, identified, known)):
        return with_what_is_sent(app, identified, directory, known) if is_to_be_sent else known
    sweep_others(directory)
    clear(directory)
    found = ahead.take(identified, directory, limits) if ahead is not None else None
    if found is None:
        found = survey_lines(identified, directory, limits, app.gauge, app.choose, app.world(order.model))
    facts = found_facts(app, identified, directory, found, limits)
    write_facts(directory / FACTS_NAME, facts)
    return with_what_is_sent(app, identified, directory, facts) if is_to_be_sent else facts


def _up_to_date(app: App, identified: IdentifiedOrder, limits: Limits) -> Facts | None:
    facts = _whole_facts(_staging_directory(app, identified), limits)
    return facts if facts is not None and _is_current(app, identified, facts) else None


def _is_current(app: App, identified: IdentifiedOrder, facts: Facts) -> bool:
    """True when earlier batches have no other answers to give than when the lines were staged."""
    return facts.answers is None or facts.answers == answers_now(app, identified)


def _whole_facts(directory: Path, limits: Limits) -> Facts | None:
    """Return what is known of staged lines, None when they are not all there, or other prices hold by now."""
    facts = read_facts(directory / FACTS_NAME)
    if facts is None or facts.survey.limits != limits:
        return None
    lines, whole = facts.request_file, facts.whole or facts.request_file
    beside = [lines.path, lines.keys_path, *filter(None, (lines.columns_path, lines.identities_path))]
    beside += [lines.skipped.path, lines.skipped.keys_path] if lines.skipped is not None else []
    spared = lines.spared if facts.whole is None else None
    beside += SparedFiles(spared.directory).kept[:2] if spared is not None else []
    try:
        is_whole = all(path.is_file() for path in beside) and whole.path.stat().st_size == whole.size_bytes
    except OSError:
        return None
    return facts if is_whole and (spared is None or are_there(spared)) else None


def _staging_directory(app: App, identified: IdentifiedOrder) -> Path:
    return (app.settings.home / "staged").resolve() / identified.staged_as
