"""What makes two orders the same: all that their requests are made of, never a path, a time or a name.

Two orders with one fingerprint have the same request lines, byte for byte: what was previewed is what is sent.
"""

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from gemini_batch_mcp import __version__
from gemini_batch_mcp.domain import Order
from gemini_batch_mcp.errors import PathError, StorageError, UsageError
from gemini_batch_mcp.intake.encodings.names import page_named
from gemini_batch_mcp.intake.files.planning import (
    MAX_IN_LINES_BYTES,
    AttachmentPlan,
    Through,
    column_of,
    plan_attachments,
)
from gemini_batch_mcp.intake.request_files import RequestFile
from gemini_batch_mcp.intake.requests.reader import file_sha256
from gemini_batch_mcp.intake.rows.choosing import Choose
from gemini_batch_mcp.intake.rows.given import GivenRows, given_rows
from gemini_batch_mcp.intake.rows.spreading import spread_of
from gemini_batch_mcp.intake.tables.earlier import KEY_COLUMN, EarlierRows
from gemini_batch_mcp.intake.tables.file_rows import PATH_COLUMN
from gemini_batch_mcp.intake.tables.folders import Folder, FolderContents, alone, find_source, read_folder, source_stamp
from gemini_batch_mcp.intake.tables.kinds import (
    FILES,
    FileKind,
    SourceKind,
    file_kind,
    file_options,
    is_workbook,
    named_tables,
    recognise,
    split_source,
)
from gemini_batch_mcp.intake.tables.reading import Place
from gemini_batch_mcp.intake.tables.text_files import reads_otherwise
from gemini_batch_mcp.intake.unpacked import inner_name, is_packed, unpack
from gemini_batch_mcp.intake.workbooks.sheets import sheet_of
from gemini_batch_mcp.paths import PathGuard
from gemini_batch_mcp.stores.found import Copied

#: In front of every fingerprint's input, so that a later way of computing it cannot collide with this one. Raising it
#: makes every order that stands look like a new one, unless what it had before is found by `earlier_sha256`.
_FINGERPRINT_VERSION = "order-2"
#: The way before, which the ledger's migration `_m007_kinds_of_files` has put the kind of file to.
_EARLIER_VERSION = "order-1"
#: In front of what a template's fingerprint is made of.
_TEMPLATE_VERSION = "template-2"
#: How the most tokens of an answer are called in a generation config.
OUTPUT_LIMIT = ("maxOutputTokens", "max_output_tokens")
#: Parts that earlier versions did not have: they count only where they are given.
_LATER_PARTS = ("where", "sample_rows")
#: Parts of an order that say how rows become requests.
_ROW_PARTS = ("prompt", "system_instruction", "response_schema", "generation_config", "key_column", "limit_rows")
#: What sets an order apart from the plain one: wrong lines are left out; what was answered is not sent, or is.
_SKIPPING: Final = "skip_invalid"
_ALWAYS: Final = "always"
_NEVER: Final = "never"
#: Members of generationConfig, in lower case, that describe an answer.
_SCHEMAS: Final = frozenset({"responseschema", "responsejsonschema", "responseformat"})
#: Kinds of sources whose rows a prompt turns into requests; and parts that go with ready lines as well.
_OF_ROWS: Final = (SourceKind.TABLE, SourceKind.REMOTE)
_READY_PARTS = ("limit_rows", "sample_rows", "generation_config")


@dataclass(frozen=True, slots=True)
class IdentifiedOrder:
    """An order whose source has been found and hashed. `place` is None for requests given in the call and for uploads.

    `content_sha256` is of the source's bytes, attached files included (for an uploaded file: of its name); `sha256` of
    the order as a whole; under one of `earlier_sha256` an older version may have written it down. `stamp` was taken
    before the source was read. `order.source` is absolute, so that another process can go on with it.
    """

    order: Order
    sha256: str
    earlier_sha256: tuple[str, ...]
    content_sha256: str
    kind: SourceKind
    place: Place | None = None
    stamp: str = ""
    attachments: AttachmentPlan | None = None
    #: Of the same order with nothing of `variants`, which says in words what sets it apart.
    plain_sha256: str = ""
    variants: tuple[str, ...] = ()
    #: What its lines were staged under, where that is not `sha256`.
    staged_sha256: str = ""
    #: It is ordered once more on purpose: nothing is taken from earlier batches.
    is_anew: bool = False

    @property
    def staged_as(self) -> str:
        """What its lines are staged under: another version of this program may write them in another way."""
        again = " again" if self.is_anew else ""
        return _sha256(f"{__version__} {self.staged_sha256 or self.sha256}{again}")

    @property
    def wants_all_sent(self) -> bool:
        """True for another order than the plain one, since all of it is to be sent."""
        return _NEVER in self.variants

    def settled(self, lines: RequestFile) -> "IdentifiedOrder":
        """Return the order as it is once its lines are known: one that leaves nothing out is the plain order."""
        left = {_SKIPPING: lines.skipped_count, _ALWAYS: lines.spared is not None, _NEVER: True}
        variants = tuple(variant for variant in self.variants if left[variant])
        if variants == self.variants:
            return self
        order = self.order
        return replace(
            self,
            order=replace(
                order,
                skip_invalid=order.skip_invalid and _SKIPPING in variants,
                reuse="auto" if _ALWAYS in self.variants and _ALWAYS not in variants else order.reuse,
            ),
            variants=variants,
            sha256=(sha256 := _varied(self.plain_sha256, variants)),
            earlier_sha256=tuple(earlier for earlier in self.earlier_sha256 if earlier != sha256),
            staged_sha256=self.sha256,
        )

    @property
    def path(self) -> Path | None:
        """The one file that the source is, None when it is none."""
        return self.place if isinstance(self.place, Path) else None

    @property
    def source_name(self) -> str:
        """What the requests came from, for people."""
        kind = "rows" if self.kind in _OF_ROWS else "requests"
        return self.order.source or f"{len(self.order.requests)} {kind} given in the call"

    def refuse_changed(self) -> None:
        """Refuse an order whose source has been written to since it was identified.

        Raises:
            StorageError: it has.
        """
        if isinstance(self.place, Path | Folder) and source_stamp(self.place) != self.stamp:
            raise StorageError(
                f"{self.place.name} changed while it was read; nothing was submitted.",
                "Submit the order again once nothing writes to the file any more.",
            )


def template_sha256(identified: IdentifiedOrder) -> str:
    """Return the fingerprint of what an order asks of each row, whatever the rows are and how many.

    Two orders with the same one differ in their sources, or in which rows they take, or in how they are delivered:
    what one was answered with tells what the other will be. Lines that ask for themselves are the same template where
    they come from the same content. How long an answer may get is left out: it cuts answers, and asks nothing else.
    """
    return template_of(identified.order, "" if identified.kind in _OF_ROWS else identified.content_sha256)


def template_of(order: Order, content_sha256: str) -> str:
    """Return the same for an order without its source; `content_sha256` is of lines that ask for themselves."""
    asked = {name: value for name, value in order.generation_config.items() if name not in OUTPUT_LIMIT}
    parts = [
        _TEMPLATE_VERSION,
        order.model,
        order.task,
        order.prompt,
        order.system_instruction,
        order.response_schema,
        asked,
        column_of(order.attach),
        content_sha256,
    ]
    return _sha256(json.dumps(parts, separators=(",", ":")))


def identify(
    order: Order,
    guard: PathGuard,
    scratch: Path,
    *,
    sha256_of: Callable[[Path], str] = file_sha256,
    read: Callable[[Folder, str], FolderContents] = lambda folder, stamp: read_folder(folder),
    through: Through = lambda path, look: look(),
    max_in_lines_bytes: int = MAX_IN_LINES_BYTES,
    on_found: Callable[[IdentifiedOrder], None] | None = None,
    earlier: Callable[[str], EarlierRows | None] = lambda reference: None,
    choose: Choose | None = None,
    copied: Copied | None = None,
) -> IdentifiedOrder:
    """Find the order's source and what it attaches, and compute its fingerprint. Reads all of it once.

    `read` reads a folder, whose stamp it is given; `through` is given each attached
    file with what looks at it.
    `scratch` is a directory for temporary files; `max_in_lines_bytes` of attached files may stand inside the requests.
    `on_found` is told of the order as far as it is known before its source is read: without hash and fingerprint.
    `earlier` returns the rows of the batch that a source names which is no file; `choose` says which rows meet a
    condition. `copied` is what the source is that is an object of an object store.

    Raises:
        UsageError: not exactly one of source and requests was given, both limits were, or other parts of the order do
            not go with it.
        RequestProblems: files to attach are missing or cannot be used; told with their rows.
        PathError: the source may not be read.
    """
    if bool(order.source) == bool(order.requests):
        given = "Both source and requests were given" if order.source else "Neither source nor requests was given"
        raise UsageError(f"{given}; an order takes exactly one of them.", "Give a path, or a list of requests.")
    if order.limit_rows and order.sample_rows:
        raise UsageError(
            f"limit_rows={order.limit_rows} takes the first rows and sample_rows={order.sample_rows} rows spread over "
            "all; an order takes one of them.",
            "Give sample_rows alone for a pilot that stands for the whole source.",
        )
    if order.encoding and not order.source:
        raise _no_text()
    if order.source.startswith("bq://"):
        # What else does not go with it is judged where its columns are known.
        _check_table(order.source.partition("#")[0], order)
        return _identified(order, f"{order.source} {order.attach}".strip(), SourceKind.REMOTE)
    if copied is None and order.source.startswith(("files/", "gs://")):
        is_object = order.source.startswith("gs://")
        what, why = "A file uploaded earlier", "was uploaded earlier and cannot be read here"
        if is_object:
            what, why = "An object in Cloud Storage", "lies in Cloud Storage and is sent as it is"
        if order.skip_invalid:
            raise UsageError(
                f"{order.source} {why}, so skip_invalid {'leaves out no' if is_object else 'finds no'} wrong lines.",
                "Leave skip_invalid out, or give the local file.",
            )
        if order.reuse == "always":
            raise UsageError(
                f"{order.source} {why}, so no rows of it can be left out.", "Leave reuse out, or give the local file."
            )
        if order.delivery == "now":
            raise UsageError(f"{order.source} {why}, so delivery='now' has no rows to call.", "Give the local file.")
        _refuse_parts(order, what, (*_ROW_PARTS, *_LATER_PARTS, "attach", "encoding"))
        return _identified(order, order.source, SourceKind.UPLOADED)
    if order.requests:
        # Columns keep their order as well: it is that of the table which comes back.
        rows = given_rows(order.requests, order.prompt, order.system_instruction)
        content = _sha256(json.dumps(order.requests, sort_keys=rows is None, separators=(",", ":")))
        if rows is None:
            _refuse_parts(order, "A list of requests", ("key_column", "limit_rows", "attach", *_LATER_PARTS))
            return _identified(order, content, SourceKind.LISTED)
        order = replace(order, key_column=order.key_column or rows.key_column)
        return _of_table(order, rows, content, guard, scratch, max_in_lines_bytes, choose, through)
    try:
        text, sheet = split_source(order.source, guard) if copied is None else ("", copied.sheet)
        place = find_source(text, guard) if copied is None else copied.file
    except PathError as error:
        found = earlier(order.source) if _may_be_batch(order.source) else None
        if found is None:
            raise _neither(order.source, error) from None
        if order.encoding:
            raise _no_text() from None
        order = replace(order, source=found.batch_id, key_column=order.key_column or KEY_COLUMN)
        _check_table(found.name, order)
        return _of_table(order, found, found.content_sha256, guard, scratch, max_in_lines_bytes, choose, through)
    if isinstance(place, Path) and copied is None and _is_attached_itself(place, order):
        place = alone(place) or place
    here = place.source if isinstance(place, Folder) else str(place)
    order = replace(order, source=copied.address if copied is not None else here)
    encoding = page_named(order.encoding).given if order.encoding else ""
    kind = recognise(place, with_prompt=bool(order.prompt), encoding=encoding)
    order = replace(order, encoding=_telling(encoding, place, scratch))
    if kind is SourceKind.TABLE:
        _check_table(place.name, order)
    else:
        what = "A file of ready requests" if kind is SourceKind.READY else "A file of OpenAI requests"
        _refuse_parts(
            order, what, [name for name in (*_ROW_PARTS, *_LATER_PARTS, "attach") if name not in _READY_PARTS]
        )
    stamp = source_stamp(place)
    if on_found is not None:
        on_found(IdentifiedOrder(order, "", (), "", kind, place, stamp))
    if isinstance(place, Folder):
        contents = read(place, stamp)
        content, place = contents.sha256, replace(place, warnings=(*place.warnings, *contents.warnings))
    else:
        content = sha256_of(place)
    if isinstance(place, Path) and is_workbook(place):
        # Named or found: the same rows are the same order.
        sheet = sheet_of(place, scratch, sheet)
        order, content = replace(order, source=f"{order.source}#{sheet}"), _sha256(f"{content} {sheet}")
    if kind is SourceKind.TABLE:
        return _of_table(order, place, content, guard, scratch, max_in_lines_bytes, choose, through, stamp)
    return _identified(order, content, kind, place, stamp)


def _of_table(
    order: Order,
    place: Place,
    content: str,
    guard: PathGuard,
    scratch: Path,
    max_in_lines_bytes: int,
    choose: Choose | None,
    through: Through,
    stamp: str = "",
) -> IdentifiedOrder:
    """Return the order whose table is at `place` and has that content; what it attaches is looked at."""
    if not order.attach:
        return _identified(order, content, SourceKind.TABLE, place, stamp)
    plan = plan_attachments(
        place,
        column=order.attach,
        guard=guard,
        scratch=scratch,
        limit_rows=order.limit_rows,
        spread=spread_of(order),
        max_in_lines_bytes=max_in_lines_bytes,
        where=order.where,
        choose=choose,
        options=file_options(order, place),
        skip_faulty=order.skip_invalid,
        through=through,
    )
    content = _sha256(f"{content} {plan.column} {plan.content_sha256}")
    return _identified(order, content, SourceKind.TABLE, place, stamp, plan)


def _is_attached_itself(place: Path, order: Order) -> bool:
    """True for a file that is no table by its name, of an order that attaches the files of its source."""
    return column_of(order.attach) == PATH_COLUMN and not is_packed(place) and file_kind(place) is None


def _may_be_batch(source: str) -> bool:
    """True for what may be the id or the name of a batch, or the name of a job."""
    return not re.search(r"[/\\*?\[]", source.removeprefix("batches/"))


def _neither(source: str, error: PathError) -> PathError:
    """Return what to say of a source that is no file, and no batch where it could be one by its form."""
    if error.elsewhere or not _may_be_batch(source) or file_kind(Path(source)) is not None:
        return error
    return PathError(
        f"{error.message} No batch goes by that id or name either.", f"{error.next_step} list_jobs lists batches."
    )


def _telling(encoding: str, place: Path | Folder, scratch: Path) -> str:
    """Return the encoding that counts for the order: one that changes no letter is as good as none.

    Raises:
        UsageError: the source is no text.
        RequestProblems: it is not in that encoding.
    """
    if not encoding or isinstance(place, Folder):
        return encoding
    form = file_kind(place)
    if form is None or not form.is_text:
        raise _no_text()
    with TemporaryDirectory(prefix="encoding-", dir=scratch, ignore_cleanup_errors=True) as name:
        workspace = Path(name).resolve()
        text = place
        if is_packed(place):
            text = workspace / inner_name(place)
            unpack(place, text)
        return encoding if reads_otherwise(text, workspace, encoding) else ""


def _no_text() -> UsageError:
    return UsageError("`encoding` says how a text file is read, and this source isn't a text file.", "Leave it out.")


def _check_table(name: str, order: Order) -> None:
    if not order.prompt:
        raise UsageError(
            f"{name} is a table, so the order needs a prompt that turns each row into a request.",
            'Give prompt="… {{column}} …" with its columns (for a folder: path, name, text), or a file of requests.',
        )


def _refuse_parts(order: Order, what: str, names: Sequence[str]) -> None:
    given = [name for name in names if getattr(order, name)]
    if given:
        raise UsageError(
            f"{what} does not go with {', '.join(given)}: it has no columns to fill in.",
            f"Leave that out, or give a table ({named_tables()}).",
        )


def _identified(
    order: Order,
    content: str,
    kind: SourceKind,
    place: Place | None = None,
    stamp: str = "",
    attachments: AttachmentPlan | None = None,
) -> IdentifiedOrder:
    row_parts = [getattr(order, name) for name in _ROW_PARTS]
    later = [(name, getattr(order, name)) for name in (*_LATER_PARTS, "encoding") if getattr(order, name)]
    # How a batch's requests reach Gemini makes no other order of them; to be answered now is another wish.
    later += [("delivery", order.delivery)] if order.delivery == "now" else []
    parts = [
        _FINGERPRINT_VERSION,
        _form(place),
        content,
        order.requests,
        order.model,
        order.task,
        *row_parts,
        _attached_form(attachments),
        *([later] if later else []),
    ]
    # Objects keep their order: Gemini fills in a schema's fields in theirs, and lines are written in it.
    fingerprint = _sha256(json.dumps(parts, separators=(",", ":")))
    earlier = () if later else _earlier(content, order, row_parts, place)
    variants = _variants(order, kind)
    if _NEVER in variants:
        # What stands may have sent less.
        earlier = ()
    elif variants:
        # Where the plain order stands, nothing of it was wrong, and all of it has been sent: it is this one.
        fewer = [other for count in range(len(variants)) for other in combinations(variants, count)]
        earlier = (*(_varied(fingerprint, other) for other in fewer), *earlier)
    return IdentifiedOrder(
        order=order,
        sha256=_varied(fingerprint, variants),
        earlier_sha256=earlier,
        content_sha256=content,
        kind=kind,
        place=place,
        stamp=stamp,
        attachments=attachments,
        plain_sha256=fingerprint,
        variants=variants,
    )


def _variants(order: Order, kind: SourceKind) -> tuple[str, ...]:
    """Return what makes another order of the same requests: that fewer of them are sent, or more."""
    is_elsewhere = kind in (SourceKind.UPLOADED, SourceKind.REMOTE)
    reuse = "" if order.reuse == "auto" or is_elsewhere else order.reuse
    # Of ready lines, each may ask for a schema of its own.
    if kind is SourceKind.TABLE and (order.reuse == "always") == reuses_by_itself(order):
        reuse = ""
    return (*([_SKIPPING] if order.skip_invalid else []), *([reuse] if reuse else []))


def reuses_by_itself(order: Order) -> bool:
    """True for an order of which `reuse` needs not be said: its answers follow from the requests, as far as any do."""
    names = {name.replace("_", "").lower() for name in order.generation_config}
    return order.task == "embed" or bool(order.response_schema) or not names.isdisjoint(_SCHEMAS)


def _varied(plain_sha256: str, variants: Sequence[str]) -> str:
    return _sha256(f"{plain_sha256} {' '.join(variants)}") if variants else plain_sha256


def _form(place: Place | None) -> str:
    """Return how a source is read, as its ending says: the same bytes are other rows in a `.txt` than in a `.csv`."""
    if isinstance(place, Folder):
        return "folder"
    if isinstance(place, GivenRows):
        return "rows"
    if isinstance(place, EarlierRows):
        return "batch"
    kind = file_kind(place) if place is not None else None
    return _form_of(kind) if kind is not None else ""


def _form_of(kind: FileKind) -> str:
    return f"{kind.layout} {kind.delimiter}"


def _attached_form(plan: AttachmentPlan | None) -> Sequence[object]:
    """Return what lines say of attached files beside their content; the delivery and the limits decide on the mode."""
    if plan is None:
        return ()
    return plan.column, [(content.sha256, content.mode, content.mime_type) for content in plan.contents]


def _earlier(content: str, order: Order, row_parts: Sequence[object], place: Place | None) -> tuple[str, ...]:
    """Return what an older version may have called the order in the ledger; see the migration there.

    The migration knew a source by its text only, in which a folder may look like a file: `docs.csv/`, `*.csv`. Its
    content is another one all the same, so that any ending will do there.
    """
    if isinstance(place, GivenRows | EarlierRows):
        return ()
    parts = [_EARLIER_VERSION, content, order.model, order.task, *row_parts]
    before = _sha256(json.dumps(parts, sort_keys=True, separators=(",", ":")))
    forms = (_form(place),) if isinstance(place, Path) else ("", *dict.fromkeys(map(_form_of, FILES.values())))
    return tuple(_sha256(f"{_EARLIER_VERSION} {before} {form}") for form in forms)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
