"""Counting SQL statements, so that a list that begins to ask once per row fails a test."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine, event

from tests.support.app import RunningApp

#: What runs whenever it likes: transactions' ends, the worker's look for tasks, the guard's look at accounts,
#: the clock's own work.
_ASIDE = re.compile(
    r"^(BEGIN|COMMIT|ROLLBACK|SAVEPOINT|RELEASE|NOTIFY)|\b(FROM|UPDATE|INTO) tasks\b"
    r"|\b(users\.user_id|clients\.client_id) IN\b|FROM uploads\b.*expires_at <|orphaned_at <|FROM refresh_tokens"
    r"|FROM password_links|FROM authorization_codes|\breminded <",
    re.DOTALL,
)


class Counter:
    """What ran while it was counting; ``texts`` in order, without what begins and ends transactions."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    @property
    def count(self) -> int:
        return len(self.texts)


@contextmanager
def counted(app: RunningApp) -> Iterator[Counter]:
    """Count the statements of the application's database within the block.

    Statements of the ingest that go to the driver itself are not seen.
    """
    counter = Counter()

    def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if _ASIDE.search(statement) is None:
            counter.texts.append(statement)

    database = app.database
    engines: list[Engine] = [database._reader.sync_engine]
    if database._write_engine is not None:
        engines.append(database._write_engine)
    for engine in engines:
        event.listen(engine, "before_cursor_execute", note)
    try:
        yield counter
    finally:
        for engine in engines:
            event.remove(engine, "before_cursor_execute", note)
