"""Whether the process is alive, and whether it can work."""

from typing import Any

from litestar import get
from litestar.di import NamedDependency

from server.auth.policies import PUBLIC
from server.errors import Problem
from storage.blobs import BlobStore, BlobsUnavailable
from storage.database import Database, Unavailable

_TAGS = ["Operation"]


@get("/healthz", opt={"policy": PUBLIC}, tags=_TAGS, summary="Alive")
async def healthz() -> dict[str, str]:
    """The process answers. Looks at nothing else, so that a slow disk does not get it restarted."""
    return {"status": "alive"}


@get("/readyz", opt={"policy": PUBLIC}, tags=_TAGS, summary="Ready")
async def readyz(database: NamedDependency[Database], blobs: NamedDependency[BlobStore]) -> dict[str, Any]:
    """The database and the blob store answer; else 503 naming what does not."""
    parts: dict[str, str] = {}
    for name, check in (("database", database.check), ("blobs", blobs.check)):
        try:
            await check()
            parts[name] = "ok"
        except (Unavailable, BlobsUnavailable):
            parts[name] = "unavailable"
    failing = [name for name, state in parts.items() if state != "ok"]
    if failing:
        raise Problem(503, "not-ready", f"Not answering: {', '.join(failing)}.", extra={"parts": parts})
    return {"status": "ready", "parts": parts}


route_handlers = [healthz, readyz]
