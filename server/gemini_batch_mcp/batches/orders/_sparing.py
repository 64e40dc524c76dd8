"""Rows of an order that need not be sent: answered in an earlier batch, or the same as another row of it."""

import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

import msgspec

from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.batches.orders._staging import FACTS_NAME, SAMPLE_NAME
from gemini_batch_mcp.batches.orders.identity import IdentifiedOrder
from gemini_batch_mcp.batches.orders.pricing import Facts, write_facts
from gemini_batch_mcp.domain import Spared
from gemini_batch_mcp.errors import StorageError, storage_errors
from gemini_batch_mcp.intake.apart.surveyed import Surveyed
from gemini_batch_mcp.intake.prices.survey import Limits, Surveyor
from gemini_batch_mcp.intake.request_files import RequestFile
from gemini_batch_mcp.intake.requests.passes import file_sha256
from gemini_batch_mcp.intake.requests.selection import WantedLines, show_numbered, write_numbered
from gemini_batch_mcp.results.reuse.giving import Answered, answers_stamp, giving
from gemini_batch_mcp.results.reuse.matching import matching
from gemini_batch_mcp.results.reuse.spared_files import SparedFiles
from gemini_batch_mcp.text import share

#: Of these, a warning names so many.
_NAMED_DONORS: Final = 3
#: Batches under way that are looked through, the newest ones (our choice).
_MOST_UNDER_WAY: Final = 8
#: The first lines that are sent, while no others are written.
_FIRST: Final = "first.jsonl"
_SHOWN_LINES: Final = 2
#: Of less, whatever is sent is read once more for its exact figure (measured: 0.1 s).
_LOOKED_AT_WHOLE_BYTES: Final = 32 << 20
_FAILED: Final = "The requests could not be staged"


class AnswersChanged(StorageError):
    """Earlier batches had other answers to give when what is sent was written than when it was priced."""


def earlier_batches(app: App, identified: IdentifiedOrder) -> Sequence[Answered]:
    """Return the batches that may have answers to give to an order."""
    if identified.is_anew:
        return ()
    order = identified.order
    return [Answered(batch_id, app.files(batch_id).table) for batch_id in app.ledger.donors.of(order.model, order.task)]


def answers_now(app: App, identified: IdentifiedOrder) -> str:
    """Return a text that changes whenever earlier batches have other answers to give to an order."""
    return answers_stamp(earlier_batches(app, identified))


def asked_elsewhere(app: App, identified: IdentifiedOrder, lines: RequestFile) -> tuple[str, ...]:
    """Say how many of the requests that are sent another batch is being asked just now; nothing where none is.

    Nobody is waited for: where others write these requests anew meanwhile, nothing is said.
    """
    order, identities = identified.order, lines.identities_path
    if identities is None or identified.is_anew or not identities.is_file():
        return ()
    going = app.ledger.donors.under_way(order.model, order.task)[:_MOST_UNDER_WAY]
    others = {name: path for name in going if (path := app.files(name).identities).is_file()}
    if not others:
        return ()
    spill = f"spill-{secrets.token_hex(4)}"
    with suppress(StorageError), matching(identities, identities.parent, spill) as rows:
        rows.take_from(giving(earlier_batches(app, identified)))
        found = {name: count for name, path in others.items() if (count := rows.sent_also_in([path]))}
        if not found:
            return ()
        count = rows.sent_also_in([others[name] for name in found])
        being = share(count, lines.count, "row", "is", "are")
        whose = "its" if len(found) == 1 else "their"
        return (
            f"{being} being answered in {_named(list(found))} already. Ordered once {whose} results are read, such "
            "rows are not sent.",
        )
    return ()


def found_facts(app: App, identified: IdentifiedOrder, directory: Path, found: Surveyed, limits: Limits) -> Facts:
    """Return what is known of an order's lines: what is sent of them, what it costs. Gemini's sample is written down.

    Raises:
        StorageError: files cannot be read or written.
    """
    lines, surveyor, terms = found.lines, found.surveyor, found.terms
    if lines.identities_path is None:
        _write_sample(directory, surveyor)
        return Facts(lines, surveyor.survey())
    # Before it is looked for: what comes meanwhile is looked for again.
    answers = answers_now(app, identified)
    with matching(lines.identities_path, directory) as rows:
        spared = rows.take_from(giving(earlier_batches(app, identified))).spared(directory)
        wanted = rows.sent() if spared is not None else b""
    if spared is None:
        _write_sample(directory, surveyor)
        return Facts(lines, surveyor.survey(), answers=answers, whole=None if lines.sha256 else lines)
    first = directory / _FIRST
    with storage_errors(_FAILED), WantedLines(lines.path, found.sizes, wanted) as sent:
        first.write_bytes(b"".join(line.removesuffix(b"\n") + b"\n" for line in sent[:_SHOWN_LINES]))
        count, part = len(sent), None
        if terms is not None and lines.size_bytes > _LOOKED_AT_WHOLE_BYTES:
            part = surveyor.of_some(wanted, found.sizes, sent, terms)
        # Lines without files in them are text from end to end, and have been added up.
        size_bytes = sent.size_bytes if part is None else part.survey().text_bytes
    if part is None:
        part = Surveyor(identified.order.model, identified.order.task, limits=limits)
        show_numbered(lines.path, lines.keys_path, wanted, part, task=identified.order.task, terms=terms)
    _write_sample(directory, part)
    request_file = replace(
        lines,
        path=first,
        count=count,
        size_bytes=size_bytes,
        sha256="",
        warnings=(*lines.warnings, _warning(spared, count + spared.count)),
        spared=spared,
    )
    return Facts(request_file, part.survey(), all_rows=surveyor.survey(), answers=answers, whole=lines)


def with_what_is_sent(app: App, identified: IdentifiedOrder, directory: Path, facts: Facts) -> Facts:
    """Write what is sent apart from the other lines, and whose answers these get; the figure stays what it was.

    Where earlier batches have other answers to give by now, what is known is found out anew.

    Raises:
        StorageError: files cannot be read or written.
    """
    lines, request_file = facts.whole, facts.request_file
    if lines is None or lines.identities_path is None:
        return facts
    with storage_errors(_FAILED):
        # Facts first: what is half written counts as not staged.
        (directory / FACTS_NAME).unlink(missing_ok=True)
    if request_file.spared is None:
        request_file = replace(request_file, sha256=file_sha256(lines.path))
    else:
        request_file = _written_apart(app, identified, directory, lines, request_file)
    facts = replace(facts, request_file=request_file, whole=None)
    write_facts(directory / FACTS_NAME, facts)
    return facts


def _written_apart(
    app: App, identified: IdentifiedOrder, directory: Path, lines: RequestFile, expected: RequestFile
) -> RequestFile:
    assert lines.identities_path is not None, "they were compared"
    requests, keys = directory / "sent.jsonl", directory / "sent-keys.jsonl"
    with matching(lines.identities_path, directory) as rows:
        if rows.take_from(giving(earlier_batches(app, identified))).spared(directory) != expected.spared:
            raise AnswersChanged(
                "Answers that this order was to take from earlier batches have just changed; nothing was submitted.",
                "Make the same call again: the order is then priced by what there is now.",
            )
        rows.write(directory)
        sent = write_numbered(lines.path, lines.keys_path, rows.sent(), requests, keys)
    with storage_errors(_FAILED):
        lines.keys_path.replace(SparedFiles(directory).keys_path)
        keys.replace(lines.keys_path)
        requests.replace(directory / "requests.jsonl")
    return replace(
        expected, path=directory / "requests.jsonl", size_bytes=sent.size_bytes, sha256=sent.sha256, mended=True
    )


def _write_sample(directory: Path, surveyor: Surveyor) -> None:
    with storage_errors(_FAILED):
        (directory / SAMPLE_NAME).write_bytes(msgspec.json.encode(surveyor.requests()))


def _warning(spared: Spared, total: int) -> str:
    reasons: list[str] = []
    if spared.reused_count:
        batches = _named([donor.batch_id for donor in spared.donors])
        were = "was" if spared.reused_count == 1 else "were"
        reasons.append(f"{spared.reused_count:,} {were} answered in {batches}")
    if spared.identical_count:
        ask = "asks" if spared.identical_count == 1 else "ask"
        reasons.append(f"{spared.identical_count:,} {ask} exactly what another row asks")
    not_sent = share(spared.count, total, "row", "is", "are")
    return f"{not_sent} not sent: {'; '.join(reasons)}. reuse='never' sends every row."


def _named(batches: Sequence[str]) -> str:
    more = len(batches) - _NAMED_DONORS
    return ", ".join(batches[:_NAMED_DONORS]) + (f" and {more:,} more" if more > 0 else "")
