"""What was said about the cost of orders: who was shown which figure, who declined it, and what was paid on it."""

from datetime import UTC, datetime

import sqlalchemy as sa

from gemini_batch_mcp.batches.ledger._database import Database
from gemini_batch_mcp.batches.ledger._tables import quote_entry, quotes, readable, values_of
from gemini_batch_mcp.batches.ledger.entries import QuoteEntry


class Quotes:
    """The quotes of one ledger. Every method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._transaction = database.transaction

    def record(self, order_sha256: str, source: str, figure: str) -> None:
        """Remember that this very order was priced for the user just now; an earlier no or yes is history."""
        told = QuoteEntry(order_sha256, source, datetime.now(UTC), figure)
        with self._transaction("record_quote") as connection:
            connection.execute(quotes.delete().where(quotes.c.order_sha256 == order_sha256))
            connection.execute(quotes.insert().values(**values_of(told, quotes)))

    def decline(self, order_sha256: str, source: str, figure: str) -> None:
        """Remember that the user was asked about this very order just now, and said no."""
        now = datetime.now(UTC)
        told = QuoteEntry(order_sha256, source, now, figure, declined_at=now)
        with self._transaction("decline_quote") as connection:
            connection.execute(quotes.delete().where(quotes.c.order_sha256 == order_sha256))
            connection.execute(quotes.insert().values(**values_of(told, quotes)))

    def void(self, order_sha256: str) -> None:
        """Forget that this order was priced: nobody can agree any more to what was said."""
        with self._transaction("void_quote") as connection:
            connection.execute(quotes.delete().where(quotes.c.order_sha256 == order_sha256))

    def told(self, order_sha256: str) -> QuoteEntry | None:
        """Return what was last said about the cost of an order, None when nothing ever was."""
        with self._transaction() as connection:
            query = sa.select(quotes).where(quotes.c.order_sha256 == order_sha256)
            with readable("what this order was said to cost"):
                row = connection.execute(query).mappings().first()
                return quote_entry(row) if row is not None else None

    def was_quoted(self, source: str) -> bool:
        """True when something that was made from `source` was priced once, be it another order."""
        with self._transaction() as connection:
            return connection.execute(sa.select(quotes).where(quotes.c.source == source)).first() is not None

    def release(self, paid_for: str) -> None:
        """Let what was said about a cost hold again, because what was to be paid with it has come to nothing."""
        with self._transaction("release_quote") as connection:
            release(connection, paid_for)


def use(connection: sa.Connection, order_sha256: str, paid_for: str) -> bool:
    """Use up what was said about an order, within the transaction that pays for it; False when there is nothing."""
    unused = (quotes.c.order_sha256 == order_sha256, quotes.c.paid_for == "")
    return bool(connection.execute(quotes.update().where(*unused).values(paid_for=paid_for)).rowcount)


def release(connection: sa.Connection, paid_for: str) -> None:
    """Let what was said hold again, within the transaction that forgets what was to be paid with it."""
    connection.execute(quotes.update().where(quotes.c.paid_for == paid_for).values(paid_for=""))
