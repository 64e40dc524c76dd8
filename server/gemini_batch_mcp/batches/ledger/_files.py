"""What the ledger remembers beside batches: files written for the user, files attached, orders quoted."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import sqlalchemy as sa

from gemini_batch_mcp.batches.ledger._database import Database
from gemini_batch_mcp.batches.ledger._records import utc
from gemini_batch_mcp.batches.ledger._tables import attachments, quotes, saved_files
from gemini_batch_mcp.domain import UploadedFile
from gemini_batch_mcp.paths import is_free_name_of

#: For how long a quote counts as what the user has just been told (our choice).
QUOTE_LIFE = timedelta(hours=24)
_NEVER = datetime.min.replace(tzinfo=UTC)


class LedgerFiles(Database):
    """The ledger's side tables. Every method is one transaction."""

    def record_saved(self, batch_id: str, path: Path, digest: str) -> None:
        """Remember that `path` was written for this batch, with these bytes; see `digests`."""
        with self._transaction("record_saved") as connection:
            connection.execute(saved_files.delete().where(saved_files.c.path == str(path)))
            connection.execute(saved_files.insert().values(path=str(path), batch_id=batch_id, digest=digest))

    def saved_digest(self, batch_id: str, path: Path) -> str:
        """Return the digest of what was written to `path` for this batch, empty when it was not."""
        with self._transaction() as connection:
            query = sa.select(saved_files.c.digest).where(
                saved_files.c.path == str(path), saved_files.c.batch_id == batch_id
            )
            return connection.execute(query).scalar() or ""

    def saved_beside(self, batch_id: str, path: Path) -> tuple[Path, ...]:
        """Return files written for this batch under a free name beside `path`, because that was somebody else's."""
        return tuple(saved for saved in self.saved_files(batch_id) if is_free_name_of(path, saved))

    def saved_files(self, batch_id: str) -> tuple[Path, ...]:
        """Return all files written for this batch, in the order of their paths; they may have been removed since."""
        with self._transaction() as connection:
            query = sa.select(saved_files.c.path).where(saved_files.c.batch_id == batch_id)
            return tuple(Path(saved) for saved in connection.execute(query.order_by(saved_files.c.path)).scalars())

    def attachments(self, batch_id: str) -> Mapping[str, UploadedFile]:
        """Return the files uploaded for a batch's rows to refer to, by the sha256 of their content."""
        with self._transaction() as connection:
            rows = connection.execute(sa.select(attachments).where(attachments.c.batch_id == batch_id)).mappings()
            return {
                row["sha256"]: UploadedFile(
                    name=row["name"],
                    size_bytes=row["size_bytes"],
                    sha256=row["sha256"],
                    mime_type=row["mime_type"],
                    state="ACTIVE",
                    expires_at=utc(row["expires_at"]),
                    uri=row["uri"],
                )
                for row in rows
            }

    def record_attachment(self, batch_id: str, sha256: str, uploaded: UploadedFile) -> None:
        """Remember where the content `sha256` is at Gemini."""
        with self._transaction("record_attachment") as connection:
            same = (attachments.c.batch_id == batch_id, attachments.c.sha256 == sha256)
            connection.execute(attachments.delete().where(*same))
            connection.execute(
                attachments.insert().values(
                    batch_id=batch_id,
                    sha256=sha256,
                    name=uploaded.name,
                    uri=uploaded.uri,
                    mime_type=uploaded.mime_type,
                    size_bytes=uploaded.size_bytes,
                    expires_at=uploaded.expires_at,
                )
            )

    def record_quote(self, order_sha256: str, source: str) -> None:
        """Remember that this very order was priced for the user just now."""
        with self._transaction("record_quote") as connection:
            connection.execute(quotes.delete().where(quotes.c.order_sha256 == order_sha256))
            connection.execute(
                quotes.insert().values(order_sha256=order_sha256, source=source, quoted_at=datetime.now(UTC))
            )

    def is_agreed(self, order_sha256: str, source: str) -> bool:
        """True when this order was quoted lately, or nothing ever was for `source`: not even another order."""
        with self._transaction() as connection:
            query = sa.select(quotes.c.order_sha256, quotes.c.quoted_at).where(quotes.c.source == source)
            quoted = {row.order_sha256: row.quoted_at.replace(tzinfo=UTC) for row in connection.execute(query)}
        return not quoted or abs(datetime.now(UTC) - quoted.get(order_sha256, _NEVER)) <= QUOTE_LIFE
