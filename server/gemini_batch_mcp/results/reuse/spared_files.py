"""The files that say which rows of an order were not sent, and whose answers they get."""

from dataclasses import dataclass
from pathlib import Path

import msgspec


class RawAnswers(msgspec.Struct, frozen=True):
    """Raw answers of a batch, of which some are taken, as they were when that was decided: size and time of change."""

    batch_id: str
    path: str
    size_bytes: int
    modified_ns: int


@dataclass(frozen=True, slots=True)
class SparedFiles:
    """Where they are: in one directory with the request lines that are sent."""

    directory: Path

    @property
    def keys_path(self) -> Path:
        """The keys of all rows, one JSON string a line, in order."""
        return self.directory / "rows.jsonl"

    @property
    def alike_path(self) -> Path:
        """Which row has the answer of which earlier one, that asks the same (Parquet: row, first_row; from 1)."""
        return self.directory / "alike.parquet"

    @property
    def chosen_path(self) -> Path:
        """Where the answers lie that are taken (Parquet: row, source, line, answered_by).

        `source` counts from 0 in `sources_path`, a list of `RawAnswers`.
        """
        return self.directory / "chosen.parquet"

    @property
    def sources_path(self) -> Path:
        """The raw answers that are taken from."""
        return self.directory / "sources.json"

    @property
    def taken_path(self) -> Path:
        """The answers that were taken, as answer lines under the keys of this order."""
        return self.directory / "taken.jsonl"

    @property
    def taken_keys_path(self) -> Path:
        """Their keys, one JSON string a line."""
        return self.directory / "taken-keys.jsonl"

    @property
    def kept(self) -> tuple[Path, ...]:
        """What a batch keeps of them, where it is there."""
        return self.keys_path, self.alike_path, self.taken_path, self.taken_keys_path

    @property
    def are_there(self) -> bool:
        """True where not all rows were sent."""
        return self.keys_path.is_file()

    def sources(self) -> list[RawAnswers]:
        """Return the raw answers that are taken from.

        Raises:
            OSError: what they are cannot be read.
            msgspec.MsgspecError: so.
        """
        return msgspec.json.decode(self.sources_path.read_bytes(), type=list[RawAnswers])
