"""What one pass over request lines finds out about their price: bounds of every line, and a sample for the rest.

Nothing here is scaled up but the tokens of texts: the lines that nobody looked at may be the dear ones.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import compress, groupby
from typing import Final

import msgspec

from gemini_batch_mcp.domain import JsonObject, Task
from gemini_batch_mcp.intake.files.placeholder import Known, known_of
from gemini_batch_mcp.intake.prices._sample import Sampler
from gemini_batch_mcp.intake.prices.price_list import OUTPUT_TOKEN_LIMIT
from gemini_batch_mcp.intake.prices.tokens import CACHED_TOKENS, Tokens, media_counts, offline_counts, text_weight
from gemini_batch_mcp.intake.validator.terms import Terms, terms_of
from gemini_batch_mcp.json_members import as_object, member

#: Longer lines are measured by the offline rule only: 20 of them would fill the memory.
_KEPT_LINE_BYTES: Final = 1 << 20
_BEGINNING_BYTES: Final = 256
#: Members of generationConfig, in lower case, that describe an answer.
_SCHEMAS: Final = ("responseschema", "responsejsonschema", "responseformat")
_NO_TOKENS: Final = Tokens()

#: What a request may name that has a price of its own, or tokens that nothing here tells.
CACHE: Final = "cachedContent"
FILE: Final = "a file that is only named"


@dataclass(frozen=True, slots=True)
class Limits:
    """What a model's prices depend on: its longest answer, and the length from which prompts cost more (0: none)."""

    output_tokens: int = OUTPUT_TOKEN_LIMIT
    long_prompt_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Load:
    """The most that some lines can take. `text` bounds the tokens of their texts; `media` are those of all else."""

    rows: int = 0
    text: float = 0.0
    media: Tokens = _NO_TOKENS
    output_tokens: int = 0

    def __add__(self, other: "Load") -> "Load":
        return Load(
            self.rows + other.rows,
            self.text + other.text,
            self.media + other.media,
            self.output_tokens + other.output_tokens,
        )

    def __sub__(self, other: "Load") -> "Load":
        return Load(
            self.rows - other.rows,
            self.text - other.text,
            self.media - other.media,
            self.output_tokens - other.output_tokens,
        )


@dataclass(frozen=True, slots=True)
class SampledLine:
    """One line of the sample; `number` counts from 1 among the lines that are sent.

    `counts` is by the offline rule, `media` what of it is no text of the line; `most` is what its text and its media
    can have at most. `settings` bounds the tokens of a schema and a cache, which a count by Gemini may leave out.
    """

    number: int
    text_bytes: int
    counts: Tokens
    media: Tokens
    most: Load
    settings: float = 0.0


@dataclass(frozen=True, slots=True)
class Unbounded:
    """Something that a few lines name and that has no bound: what, in how many lines, and the first of them."""

    what: str
    lines: int
    first_line: int


@dataclass(frozen=True, slots=True)
class Survey:
    """What one pass found. `most` is of all lines, `most_of_long` of those at the higher price of long prompts.

    `media` is what is no text by the offline rule, exact over all lines; `text_bytes` are those of the lines without
    the files in them. `uncapped_rows` set no maxOutputTokens.
    """

    model: str = ""
    limits: Limits = Limits()
    rows: int = 0
    text_bytes: int = 0
    media: Tokens = _NO_TOKENS
    most: Load = Load()
    most_of_long: Load = Load()
    uncapped_rows: int = 0
    lines: tuple[SampledLine, ...] = ()
    unbounded: tuple[Unbounded, ...] = ()


@dataclass(frozen=True, slots=True)
class _Piece:
    """Lines that came together: how many, their bytes, and the most tokens that their texts can have."""

    rows: int
    size_bytes: int
    text: float


@dataclass(slots=True)
class _Sums:
    text_bytes: int = 0
    media: Tokens = _NO_TOKENS
    most: Load = Load()
    most_of_long: Load = Load()
    uncapped_rows: int = 0
    unbounded: dict[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]])


class Surveyor:
    """Sees the lines of one file as they are checked (`requests.lines.Onlooker`).

    `known` says what is known of a file that lines only name.
    """

    def __init__(
        self,
        model: str,
        task: Task = "generate",
        *,
        limits: Limits | None = None,
        known: Callable[[str], Known | None] = known_of,
    ) -> None:
        self._model = model
        self._task = task
        self._limits = limits or Limits()
        self._known = known
        self.begin()

    def begin(self) -> None:
        """Forget all lines: the pass begins anew."""
        self._sampler = Sampler(self._kept)
        self._sums = _Sums()
        #: Of what each piece was made, as long as no line needs a look of its own; None from then on.
        self._pieces: list[_Piece] | None = []

    def see(self, piece: bytes, lines: Sequence[bytes], keys: bytes, before: int, terms: Terms | list[Terms]) -> None:
        """Look at the `lines` of a piece; see `Onlooker.see`."""
        self._sampler.feed(lines)
        long_bytes = self._limits.long_prompt_tokens
        if not isinstance(terms, list):
            groups = [(terms, len(lines))]
        else:
            # Lines of one file that ask for the same share one object, so this is quick.
            runs = [list(run) for _, run in groupby(terms, id)]
            groups = [(run[0], len(run)) for run in runs]
        if any(one.media or one.has_cache for one, _ in groups) or 0 < long_bytes < len(piece):
            self._pieces = None
            each = terms if isinstance(terms, list) else [terms] * len(lines)
            separate = keys.split(b"\n")
            for number, (line, key, asked) in enumerate(zip(lines, separate, each, strict=False), before + 1):
                self._add(line, key, number, asked)
            return
        sums, output = self._sums, 0
        sums.text_bytes += len(piece)
        for one, count in groups:
            output += self._bound(one, count, before + 1)
            before += count
        text = text_weight(piece, rows=len(lines), keys=keys)
        sums.most += Load(len(lines), text, output_tokens=output)
        if self._pieces is not None:
            self._pieces.append(_Piece(len(lines), len(piece) + (not piece.endswith(b"\n")), text))

    def of_some(self, wanted: bytes, sizes: Sequence[int], lines: Sequence[bytes], terms: Terms) -> "Surveyor | None":
        """Return one that has seen some of the same lines, of which it looks at a few; None where that is not enough.

        `wanted` holds a byte for each line, 1 or 0, and `sizes` its bytes; `lines` are those that are wanted, `terms`
        those of all. The texts of some hundred lines that came together count alike by their bytes.
        """
        if self._pieces is None or terms.media or terms.has_cache:
            return None
        part, before = Surveyor(self._model, self._task, limits=self._limits, known=self._known), 0
        sums = part._sums
        for piece in self._pieces:
            end = before + piece.rows
            marks = wanted[before:end]
            if count := marks.count(1):
                size_bytes = sum(compress(sizes[before:end], marks))
                output = part._bound(terms, count, sums.most.rows + 1)
                sums.text_bytes += size_bytes
                sums.most += Load(count, piece.text * size_bytes / piece.size_bytes, output_tokens=output)
            before = end
        part._sampler.feed(lines)
        return part

    def survey(self) -> Survey:
        """Return what was found out."""
        sums = self._sums
        return Survey(
            model=self._model,
            limits=self._limits,
            rows=sums.most.rows,
            text_bytes=sums.text_bytes,
            media=sums.media,
            most=sums.most,
            most_of_long=sums.most_of_long,
            uncapped_rows=sums.uncapped_rows,
            lines=tuple(
                line if isinstance(line, SampledLine) else self._measured(number, line)
                for number, line in self._sampler.lines
            ),
            unbounded=tuple(Unbounded(what, *seen) for what, seen in sums.unbounded.items()),
        )

    def requests(self) -> dict[int, JsonObject]:
        """Return the requests of the sample by their numbers, those aside that are too long to be asked about."""
        lines = self._sampler.lines
        return {number: msgspec.json.decode(line)["request"] for number, line in lines if isinstance(line, bytes)}

    def _kept(self, number: int, line: bytes) -> bytes | SampledLine:
        # The same line is the same sample, whether it came with its line end or without.
        line = line.removesuffix(b"\n")
        return line if len(line) <= _KEPT_LINE_BYTES else self._measured(number, line)

    def _measured(self, number: int, line: bytes) -> SampledLine:
        value = msgspec.json.decode(line)
        request = value["request"]
        terms, counts = terms_of(request), offline_counts(request, model=self._model)
        text = _without_files(line, terms)
        media, most = media_counts(terms, model=self._model, known=self._known)
        weight = text_weight(text, rows=1, keys=msgspec.json.encode(value["key"]))
        return SampledLine(
            number,
            text_bytes=len(text),
            counts=counts,
            media=media,
            most=Load(1, weight, most, self._output(terms)),
            settings=_schema_weight(request) + terms.has_cache * CACHED_TOKENS,
        )

    def _add(self, line: bytes, key: bytes, number: int, terms: Terms) -> None:
        """Add one line that may be long, or that has files in it."""
        sums, text = self._sums, _without_files(line, terms).removesuffix(b"\n")
        usual, most = media_counts(terms, model=self._model, known=self._known)
        sums.text_bytes += len(text)
        sums.media += usual
        load = Load(1, text_weight(text, rows=1, keys=key), most, self._bound(terms, 1, number))
        sums.most += load
        if usual.unknown_references:
            self._note(FILE, 1, number)
        # No token is shorter than a byte.
        if 0 < self._limits.long_prompt_tokens < len(text) + most.total:
            sums.most_of_long += load

    def _bound(self, terms: Terms, rows: int, number: int) -> int:
        """Note what some lines ask for, all the same, from the one of that number on; return their longest answers."""
        sums = self._sums
        if not terms.max_output_tokens:
            sums.uncapped_rows += rows
        if terms.has_cache:
            self._note(CACHE, rows, number)
        for tool in terms.tools:
            self._note(tool, rows, number)
        return rows * self._output(terms)

    def _output(self, terms: Terms) -> int:
        if self._task == "embed":
            return 0
        limit = self._limits.output_tokens
        return min(terms.max_output_tokens or limit, limit) * terms.candidates

    def _note(self, what: str, rows: int, number: int) -> None:
        seen, first = self._sums.unbounded.get(what, (0, number))
        self._sums.unbounded[what] = (seen + rows, first)


def _without_files(line: bytes, terms: Terms) -> bytes:
    """Return what is text of a line: all but the base64 in it."""
    for media in terms.media:
        # Found by its beginning: looking for all of a picture takes as long as checking it.
        if media.data and (at := line.find(bytes(media.data[:_BEGINNING_BYTES]))) >= 0:
            line = line[:at] + line[at + len(media.data) :]
    return line


def _schema_weight(request: JsonObject) -> float:
    config = as_object(member(request, "generationConfig"))
    schemas = [value for name, value in config.items() if name.replace("_", "").lower() in _SCHEMAS and value]
    return sum(text_weight(msgspec.json.encode(schema), rows=0, keys=b"") for schema in schemas)
