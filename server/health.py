"""Whether the process is alive, and whether it can work."""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from litestar import get
from litestar.di import NamedDependency

from server.auth.policies import PUBLIC
from server.errors import Problem
from storage.blobs import BlobStore, BlobsUnavailable
from storage.database import Database, Unavailable

#: How often the store is asked, and how long a probe waits for its answer. Load balancers ask every few seconds.
_EVERY_SECONDS = 30.0
_PATIENCE_SECONDS = 2.0
_TAGS = ["Operation"]

log = logging.getLogger("fieldsync.health")


class StoreWatch:
    """How the store of files does, asked at most once in 30 s, however many want to know.

    Args:
        monotonic: a clock that never goes back, in seconds.
        patience: how long anybody waits for an answer of the store, in seconds.
    """

    def __init__(
        self,
        blobs: BlobStore,
        monotonic: Callable[[], float] = time.monotonic,
        patience: float = _PATIENCE_SECONDS,
    ) -> None:
        self._blobs = blobs
        self._monotonic = monotonic
        self._patience = patience
        self._asked = 0.0
        self._answer: asyncio.Task[bool] | None = None

    async def answers(self) -> bool:
        """Whether it took a file, gave it back and removed it when it was last asked."""
        at = self._monotonic()
        # One at a time: each of those that ask a hanging disk keeps a thread.
        if self._answer is None or (self._answer.done() and at - self._asked >= _EVERY_SECONDS):
            self._asked = at
            self._answer = asyncio.create_task(self._ask())
        left = max(self._asked + self._patience - at, 0.0)
        await asyncio.wait({self._answer}, timeout=left)
        return self._answer.done() and not self._answer.cancelled() and self._answer.result()

    async def _ask(self) -> bool:
        try:
            await self._blobs.check()
        except BlobsUnavailable as error:
            log.warning("blobs unavailable: %s", error)
            return False
        except Exception:
            # A probe that failed for it would take the whole server out of service.
            log.exception("unexpected error of the store of files")
            return False
        return True

    async def close(self) -> None:
        """Ask no longer."""
        if self._answer is not None:
            # Cut off, it might leave its file behind.
            await asyncio.wait({self._answer}, timeout=self._patience)
            self._answer.cancel()
            with suppress(asyncio.CancelledError):
                await self._answer


@get("/healthz", opt={"policy": PUBLIC}, tags=_TAGS, summary="Alive")
async def healthz() -> dict[str, str]:
    """The process answers. Looks at nothing else, so that a slow disk does not get it restarted."""
    return {"status": "alive"}


@get("/readyz", opt={"policy": PUBLIC}, tags=_TAGS, summary="Ready")
async def readyz(
    database: NamedDependency[Database], store_watch: NamedDependency[StoreWatch]
) -> dict[str, Any]:
    """The database answers; else 503. ``parts`` says also how the blob store did within the last 30 seconds, which
    changes nothing: without it jobs go on syncing, and what needs it says so itself."""
    is_up, has_blobs = await asyncio.gather(_answers(database), store_watch.answers())
    parts = {"database": _word(is_up), "blobs": _word(has_blobs)}
    if not is_up:
        raise Problem(503, "not-ready", "Not answering: database.", extra={"parts": parts})
    return {"status": "ready", "parts": parts}


async def _answers(database: Database) -> bool:
    try:
        await database.check()
    except Unavailable:
        return False
    return True


def _word(is_ok: bool) -> str:
    return "ok" if is_ok else "unavailable"


route_handlers = [healthz, readyz]
