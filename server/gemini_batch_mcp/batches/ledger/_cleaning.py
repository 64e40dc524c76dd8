"""A ledger that was written before secrets were cut out by their values: they are cut out of it, once for each of them.

At the opening and not by a migration, since only then is it known which values these are; and once, because a ledger
may be large.
"""

import hmac
from typing import Final

import sqlalchemy as sa

from gemini_batch_mcp.batches.ledger._database import USERS_OWN, Database
from gemini_batch_mcp.batches.ledger._tables import (
    attachments,
    batches,
    cleanings,
    deleted_batches,
    jobs,
    quotes,
    salts,
)
from gemini_batch_mcp.redaction import Secrets

_TABLES: Final = (batches, jobs, attachments, quotes, deleted_batches)


def clean_once(database: Database, secrets: Secrets) -> bool:
    """Cut secrets out of a ledger that has not been cleaned of them; returns whether it held any.

    Raises:
        StorageError: it cannot be read or written.
    """
    if not secrets.values:
        return False
    with database.transaction() as connection:
        salt = str(connection.execute(sa.select(salts.c.salt)).scalar_one())
        marks = {hmac.new(salt.encode(), value.encode(), "sha256").hexdigest() for value in secrets.values}
        known = set(connection.execute(sa.select(cleanings.c.mark).where(cleanings.c.mark.in_(marks))).scalars())
        if known == marks:
            return False
        has_changed = [_clean(connection, table, secrets) for table in _TABLES]
        connection.execute(cleanings.insert(), [{"mark": mark} for mark in sorted(marks - known)])
    if any(has_changed):
        database.forget_what_was()
    return any(has_changed)


def _clean(connection: sa.Connection, table: sa.Table, secrets: Secrets) -> bool:
    """Cut secrets out of a table; returns whether it held any. What cannot be read is left as it is."""
    names = [column.name for column in table.columns if column.key not in USERS_OWN]
    listed = ", ".join(f'"{name}"' for name in names)
    found = connection.exec_driver_sql(f"SELECT rowid, {listed} FROM {table.name}").all()  # noqa: S608 - our own names
    changed = False
    for rowid, *values in found:
        cut = {
            name: secrets.cut(value)
            for name, value in zip(names, values, strict=True)
            if isinstance(value, str) and secrets.cut(value) != value
        }
        if cut:
            settings = ", ".join(f'"{name}" = ?' for name in cut)
            statement = f"UPDATE {table.name} SET {settings} WHERE rowid = ?"  # noqa: S608 - our own names
            connection.exec_driver_sql(statement, (*cut.values(), rowid))
            changed = True
    return changed
