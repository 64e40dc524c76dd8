"""What every operation on a batch needs, built in one place and handed on: settings, paths, ledger, gateway, work."""

import shutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import anyio
import httpx2

from gemini_batch_mcp.batches.gauge import Gauge
from gemini_batch_mcp.batches.hashes import FileHashes
from gemini_batch_mcp.batches.ledger.cards import refuse_lost, take_back, write_card
from gemini_batch_mcp.batches.ledger.ledger import Ledger
from gemini_batch_mcp.batches.work import Work
from gemini_batch_mcp.domain import Account, ChosenRows
from gemini_batch_mcp.errors import StorageError, state_failure
from gemini_batch_mcp.gemini.developer.installed import installed_types
from gemini_batch_mcp.gemini.gateway import Gateway, Hook, RetryPolicy, open_gateway
from gemini_batch_mcp.intake.request_files import Skipped
from gemini_batch_mcp.intake.validator.world import World
from gemini_batch_mcp.paths import PathGuard
from gemini_batch_mcp.results.answer_index import IDENTITIES_NAME
from gemini_batch_mcp.results.query.queries import QueryEngine
from gemini_batch_mcp.results.reuse.spared_files import SparedFiles
from gemini_batch_mcp.results.store import TableReader
from gemini_batch_mcp.settings import Settings
from gemini_batch_mcp.stores.store import Stores
from gemini_batch_mcp.threads import in_thread, in_thread_left_behind

#: How long after results were asked for the process is started that answers questions about them.
_PREPARE_AFTER_SECONDS = 1.0
#: What a batch's directory is called from the moment that it is gone: what is left of it is removed at the next start.
REMOVED_PREFIX = ".removed-"


@dataclass(frozen=True, slots=True)
class BatchFiles:
    """The files of one batch inside the state directory."""

    directory: Path

    def make_directory(self) -> None:
        """Make the batch's directory, for its owner only.

        Raises:
            StorageError: it cannot be made.
        """
        try:
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise StorageError(
                f"{self.directory} cannot be created ({error.strerror}).",
                "Check the directory set as GEMINI_BATCH_HOME.",
            ) from None

    def requests(self, attempt: int = 1) -> Path:
        """The request lines of an attempt as they were sent, when they differ from the user's file."""
        return self.directory / f"requests{_suffix(attempt)}.jsonl"

    def keys(self, attempt: int = 1) -> Path:
        """The keys that an attempt sent, one JSON string a line, in order."""
        return self.directory / f"keys{_suffix(attempt)}.jsonl"

    def appraisal(self, attempt: int) -> Path:
        """What is known of the price of a retry's requests."""
        return self.directory / f"appraisal{_suffix(attempt)}.json"

    @property
    def skipped(self) -> Path:
        """The lines that were left out as wrong, as answers with an error; absent where there are none."""
        return self.directory / Skipped.NAME

    @property
    def skipped_keys(self) -> Path:
        """Their keys, one JSON string a line."""
        return self.directory / Skipped.KEYS_NAME

    @property
    def identities(self) -> Path:
        """The identity of each row's request; absent where an earlier version has ordered it."""
        return self.directory / IDENTITIES_NAME

    @property
    def asked_schema(self) -> Path:
        """The response schema that every request asks for itself; absent where the order gave it, or there is none."""
        return self.directory / "schema.json"

    @property
    def spared(self) -> SparedFiles:
        """Where it stands which rows were not sent, and whose answers they get; absent where all were."""
        return SparedFiles(self.directory)

    @property
    def source_columns(self) -> Path:
        """The columns of the user's table, a row for each request of the first attempt."""
        return self.directory / "source.parquet"

    @property
    def media(self) -> Path:
        """The directory of the files that answers carried: images, sound."""
        return self.directory / "media"

    @property
    def table(self) -> Path:
        """The result table: the file that says which parts it has."""
        return self.directory / "results.json"

    @property
    def tokens(self) -> Path:
        """What answers took whose table is not on this machine: a sample of them."""
        return self.directory / "tokens.json"

    def answers(self, job_id: int) -> Path:
        """The answers of one job, as Gemini sent them."""
        return self.directory / f"answers-{job_id}.jsonl"

    def calls(self, job_id: int) -> Path:
        """The journal of the calls of one job whose rows are answered now."""
        return self.directory / f"calls-{job_id}.jsonl"


def _suffix(attempt: int) -> str:
    return "" if attempt == 1 else f"-{attempt}"


@dataclass(frozen=True, slots=True)
class App:
    """One process's settings and open resources."""

    settings: Settings
    guard: PathGuard
    ledger: Ledger
    gateway: Gateway
    work: Work
    hashes: FileHashes
    queries: QueryEngine
    #: Object stores that sources and results may be in.
    stores: Stores
    #: This process lives on after a call, so that it may go on with what it finds unfinished.
    lives_on: bool = False
    #: Whose calls those of this process are.
    account: Account = field(default_factory=Account)
    #: Batches that this start has taken back into the ledger from their directories.
    taken_back: tuple[str, ...] = ()
    tables: TableReader = field(default_factory=TableReader)
    #: What work for this caller moves.
    gauge: Gauge = field(default_factory=Gauge)

    def watched_by(self, gauge: Gauge) -> "App":
        """Return the same for one caller, whose gauge it is."""
        return replace(self, gauge=gauge)

    async def run(self, name: str, work: Callable[[], Awaitable[Any]], *, wait_seconds: float | None) -> bool:
        """Start work that may outlive this call, or join it; see `Work.run`."""
        return await self.work.run(name, work, wait_seconds=wait_seconds, gauge=self.gauge)

    def is_own(self, fingerprint: str) -> bool:
        """True for the fingerprint of this process's key and endpoint, whatever ledger it was made for."""
        salt = fingerprint.partition(":")[0]
        return bool(fingerprint) and fingerprint in (self.account.fingerprint, self.gateway.account(salt).fingerprint)

    def files(self, batch_id: str) -> BatchFiles:
        """Return where the files of a batch are, resolved: request lines are read as the user's files are."""
        return BatchFiles((self.settings.home / "batches" / batch_id).resolve())

    def keep_card(self, batch_id: str) -> None:
        """Bring what a batch's directory says about it up to date."""
        write_card(self.ledger, self.files(batch_id).directory, batch_id)

    def refuse_lost(self) -> None:
        """Refuse to order anything while the ledger lacks batches that are beside it; see `cards.refuse_lost`."""
        refuse_lost(self.ledger, self.settings.home / "batches")

    def unknown_directories(self) -> tuple[str, ...]:
        """Return the batches' directories that no batch of the ledger has, and that cannot be taken back."""
        directories = self.settings.home / "batches"
        known = set(self.ledger.batch_ids(limit=-1))
        names = (path.name for path in directories.glob("[!.]*") if path.is_dir())
        return tuple(sorted(name for name in names if name not in known))

    def lock_path(self, batch_id: str) -> Path:
        """Return the file that is held by whoever changes a batch; the system releases it when that process dies.

        It is not among the batch's files: they may be removed while somebody waits for it.
        """
        return self.settings.home / "locks" / f"{batch_id}.lock"

    def saving_lock_path(self, batch_id: str) -> Path:
        """Return the file that is held by whoever writes results of a batch for the user."""
        return self.lock_path(f"{batch_id}.saving")

    def choose(self, table: Path, where: str, *, number: str, is_text: bool) -> ChosenRows:
        """Return the rows of a table that meet a condition; see `QueryEngine.choose_rows`."""
        return self.queries.choose_rows(table, where, number=number, is_text=is_text)

    def world(self, model: str) -> World:
        """Return how lines for a model are judged."""
        return World(
            is_open=not self.settings.refuse_unknown,
            installed=installed_types,
            model=model,
            is_cloud=self.gateway.service.is_cloud,
        )

    async def prepare_queries(self) -> None:
        """Start the process that answers questions in SQL, in the background, where questions may follow."""
        if self.lives_on:
            await self.run("prepare queries", self._prepare_queries, wait_seconds=0)

    async def _prepare_queries(self) -> None:
        # Nobody asks sooner, and what has to be read first is read sooner without it.
        await anyio.sleep(_PREPARE_AFTER_SECONDS)
        # Who closes does not wait for a process that is starting: closing the engine ends it.
        await in_thread_left_behind(self.queries.prepare)

    async def aclose(self) -> None:
        """Close everything that was opened. Background work must have ended."""
        await in_thread(self.queries.close)
        self.tables.close()
        await self.gateway.aclose()
        self.ledger.close()


def open_app(
    settings: Settings,
    work: Work,
    transport: httpx2.AsyncBaseTransport | None = None,
    *,
    lives_on: bool = False,
    hook: Hook | None = None,
) -> App:
    """Open the ledger and the gateway. `transport` replaces the network: the embedded service in process.

    `hook` is called before and after every effect on the ledger and on the network; see `Database` and `Gateway`.

    Raises:
        StorageError: the state directory cannot be used.
    """
    ledger = Ledger.open(settings.home / "ledger.sqlite3", hook, settings.secrets)
    if ledger.was_cleaned:
        for batch_id in ledger.batch_ids(limit=-1):
            write_card(ledger, settings.home / "batches" / batch_id, batch_id)
    for removed in (settings.home / "batches").glob(f"{REMOVED_PREFIX}*"):
        shutil.rmtree(removed, ignore_errors=True)
    if settings.files in settings.roots:
        try:
            settings.files.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise state_failure(settings.home, "The directory for files", error) from None
    # Whoever polls more often than twice a second wants repeats sooner, too.
    retry = RetryPolicy(initial_delay_seconds=min(0.5, settings.poll_seconds))
    gateway = open_gateway(settings, transport=transport, hook=hook, retry=retry)
    return App(
        settings=settings,
        guard=PathGuard(roots=settings.roots, working_directory=settings.working_directory),
        ledger=ledger,
        gateway=gateway,
        account=gateway.account(ledger.salt()),
        taken_back=take_back(ledger, settings.home / "batches"),
        work=work,
        hashes=FileHashes(),
        queries=QueryEngine(),
        stores=Stores(settings),
        lives_on=lives_on,
    )
