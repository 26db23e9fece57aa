"""What the command does to an installation, apart from serving it."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import TypeVar

from server.settings import Settings
from server.setup import create_team
from storage.database import Database, Unavailable, open_database
from storage.queries.feed import renew_incarnations

T = TypeVar("T")


def init(settings: Settings, team: str, owner: str) -> dict[str, str]:
    """Create a team with its owner and a client; see :func:`server.setup.create_team`.

    Raises:
        ValueError: the names are taken or cannot be used, or the database does not answer.
    """

    async def work(database: Database) -> dict[str, str]:
        await database.migrate()
        return await create_team(database, team, owner)

    return _with_database(settings, work)


def migrate(settings: Settings) -> None:
    """Bring the schema up to this version.

    Raises:
        ValueError: the database does not answer.
    """
    _with_database(settings, Database.migrate)


def new_incarnation(settings: Settings) -> str:
    """Give every team a new incarnation, and answer it.

    Raises:
        ValueError: the database does not answer.
    """
    value = secrets.token_hex(4)

    async def work(database: Database) -> str:
        await database.migrate()
        await database.write(renew_incarnations, value)
        return value

    return _with_database(settings, work)


def _with_database(settings: Settings, work: Callable[[Database], Awaitable[T]]) -> T:
    async def main() -> T:
        database = open_database(settings.effective_database_url)
        try:
            return await work(database)
        finally:
            await database.close()

    try:
        return asyncio.run(main())
    except Unavailable as error:
        raise ValueError(f"the database does not answer: {error}") from None
