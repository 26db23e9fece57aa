"""Secrets of the installation, each made once and the same for all its processes."""

import secrets

from sqlalchemy import Connection, select

from storage.queries.statements import upsert_insert
from storage.tables.secrets import server_secrets

_BYTES = 32


def shared_secret(connection: Connection, name: str, now: int) -> bytes:
    """The secret called ``name``: 32 random bytes, made when it is first asked for.

    Of processes that start together one makes it; the others wait for that one and read it.
    """
    known = select(server_secrets.c.value).where(server_secrets.c.name == name)
    value = connection.execute(known).scalar_one_or_none()
    if value is None:
        insert = upsert_insert(connection, server_secrets).values(
            name=name, value=secrets.token_bytes(_BYTES), created_at=now
        )
        connection.execute(insert.on_conflict_do_nothing(index_elements=[server_secrets.c.name]))
        value = connection.execute(known).scalar_one()
    return bytes(value)
