"""An upload that is begun while an order's lines are checked, and finished once they are known to be what it sent.

What travels is the user's file as it is. Until the order has passed, is priced, agreed to and reserved, nothing is
finalized: Gemini has no file then, and forgets what has come. Nor is anything begun where the size alone says that the
user is going to be asked, or refused. What goes wrong here costs no order anything: the usual upload follows.
"""

import re
import secrets
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

import anyio
import anyio.from_thread

from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.batches.gauge import Doing, Progress
from gemini_batch_mcp.batches.ledger.entries import JobEntry
from gemini_batch_mcp.batches.orders.identity import IdentifiedOrder
from gemini_batch_mcp.errors import BatchError
from gemini_batch_mcp.intake.opened import SourceFile
from gemini_batch_mcp.intake.prices.price_list import load_prices
from gemini_batch_mcp.intake.requests.shards import Shard, ShardReader

#: What of a file is looked at to guess what it may cost.
_SAMPLE_BYTES: Final = 1 << 18
#: Of UTF-8 a token has fewer, whatever the language (our choice: a guess that is too low costs an upload for nothing).
_BYTES_PER_TOKEN: Final = 8
_LIMIT: Final = re.compile(rb'"max_?[oO]utput_?[tT]okens"\s{0,9}:\s{0,9}(\d{1,9})')


class EarlyUpload:
    """The early upload of one call, if there is one. Whoever has it at the end gives it up; used or not, that is all.

    It runs as work of the process: the submission that finishes it may outlive the call that has begun it.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        self._name = f"upload early {secrets.token_hex(8)}"
        self._size_bytes = 0
        self._reader: ShardReader | None = None
        #: All but the last bytes are at Gemini, or nothing more comes.
        self._is_waiting = anyio.Event()
        self._may_finalize = anyio.Event()
        self._has_ended = anyio.Event()
        self._file_name = ""
        #: A submission sees to its end.
        self.is_handed_over = False

    def begin(self, found: IdentifiedOrder) -> None:
        """Begin, from a worker thread, with the file of an order that is not known to be right."""
        path, order, settings = found.path, found.order, self._app.settings
        if path is None or order.delivery != "file" or self._app.gateway.service.is_cloud:
            return  # In a bucket, where a file goes follows from its content.
        try:
            size_bytes = path.stat().st_size
            if size_bytes > settings.max_file_bytes or self._may_be_refused(found, path, size_bytes):
                return
            self._reader = ShardReader(path, Shard(1, 0, 0, 0, size_bytes, "", 0))
        except (OSError, BatchError):
            return  # Whoever needs it finds out, and is told.
        self._size_bytes = size_bytes
        anyio.from_thread.run(partial(self._app.run, self._name, partial(self._upload, self._reader), wait_seconds=0))

    async def finish(self, job: JobEntry) -> str:
        """Finish it as the upload of a job, and return the file's name; empty where it is not that, or has failed."""
        if self._reader is None:
            return ""
        await self._is_waiting.wait()
        if self._has_ended.is_set() or (self._size_bytes, self._reader.sent_sha256) != (job.size_bytes, job.sha256):
            self.give_up()
            return ""
        self._may_finalize.set()
        await self._has_ended.wait()
        return self._file_name

    def give_up(self) -> None:
        """Stop it, unless it has ended; it tells Gemini to forget what has come."""
        self._app.work.stop(self._name)

    async def _upload(self, reader: ShardReader) -> None:
        try:
            with suppress(BatchError):
                uploaded = await self._app.gateway.upload(
                    reader,
                    size_bytes=self._size_bytes,
                    display_name=f"{self._name.rpartition(' ')[2]}.jsonl",
                    sha256=lambda: reader.sent_sha256,
                    on_progress=self._show,
                    before_finalize=self._wait,
                )
                self._file_name = uploaded.name
        finally:
            self._has_ended.set()
            self._is_waiting.set()
            reader.close()

    async def _wait(self) -> None:
        self._is_waiting.set()
        await self._may_finalize.wait()

    def _show(self, done_bytes: int, total_bytes: int | None) -> None:
        if self.is_handed_over:
            self._app.gauge.show(Progress(Doing.UPLOADING, done_bytes, total_bytes))

    def _may_be_refused(self, found: IdentifiedOrder, path: Path, size_bytes: int) -> bool:
        """True where so large a file of such lines costs more than the user wants to be asked about, or allows."""
        settings, order = self._app.settings, found.order
        limits = [limit for limit in (settings.confirm_above_usd, settings.max_cost_usd) if limit is not None]
        if not limits:
            return False
        prices = load_prices(settings.prices_path).prices(order.model, datetime.now(UTC).date())
        if not prices:
            return True
        with SourceFile(path) as file:
            sample = file.read(_SAMPLE_BYTES) or b""
        rows = size_bytes * max(sample.count(b"\n"), 1) / max(len(sample), 1)
        stated = [int(number) for number in _LIMIT.findall(sample)]
        answer_tokens = sum(stated) / len(stated) if stated else max(price.output_token_limit for price in prices)
        tokens_in, tokens_out = size_bytes / _BYTES_PER_TOKEN, rows * answer_tokens
        usd = max(tokens_in * price.rates.input + tokens_out * price.rates.output for price in prices) / 1_000_000
        return usd > min(limits)
