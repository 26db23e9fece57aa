"""Two servers behind one interface: the pure merge in memory, and the running ingest over a database."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, Protocol

import msgspec

from storage.database import Connection, Database, open_database
from storage.queries import jobs as job_queries
from storage.queries.feed import incarnation
from storage.queries.teams import insert_team
from sync import merge
from sync.answers import job_document, push_answer
from sync.batch import apply_batch
from sync.edits import SERVER, Job, pack, unpack
from sync.errors import Conflict, NotFound, SyncError
from sync.etag import format_etag, parse_etag
from sync.ingest import Ingest
from sync.items import Applied, Caller, ChangeItem, PushItem, Result
from sync.snapshot import Part, Snapshot, parse
from sync.values import same_document
from sync.view import completed
from tests.sync.oracle import Request

Change = Literal["edit", "abort", "reopen"]
INCARNATION = "0a1b2c3d"
JOB_ID = "0" * 24


@dataclass(frozen=True)
class Reply:
    """What a server answers: a status, a body, and what the oracle asks about."""

    status: int
    body: bytes
    replayed: bool = False
    rev: int = 0

    def document(self) -> Any:
        return msgspec.json.decode(self.body)


def reply_to(request: Request, result: Result) -> Reply:
    """The HTTP answer that a result becomes."""
    if isinstance(result, SyncError):
        status = {"Gone": 410, "Conflict": 409, "Forbidden": 403, "NotFound": 404}[type(result).__name__]
        problem = {"code": result.code, "retry": "never", **_plain(result.extra)}
        return Reply(status, msgspec.json.encode(problem))
    return Reply(200, push_answer(result, request.minimal), result.replayed, result.rev)


def _plain(extra: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in extra.items() if isinstance(value, bool | str)}


class Server(Protocol):
    """One job on a server."""

    def push(self, requests: Sequence[Request], received_at: int) -> list[Reply]:
        """Apply pushes that came together."""

    def change(self, kind: Change, scopes: Mapping[str, Part], received_at: int) -> bool:
        """An operator's change; answers whether it was accepted."""

    def read(self) -> Reply:
        """What a GET of the job answers: 404 while there is none."""


class PureServer:
    """The merge alone: what the ingest does around it, in memory and in as few lines."""

    def __init__(self, client_job_id: str) -> None:
        self.job = Job(
            job_id=JOB_ID, client_job_id=client_job_id, team="north", created_by="user", rev=0, scopes={}
        )
        self._pushes: dict[tuple[str, int], Snapshot] = {}
        self._bodies: set[bytes] = set()

    def push(self, requests: Sequence[Request], received_at: int) -> list[Reply]:
        return [reply_to(request, self._push(request, received_at)) for request in requests]

    def _push(self, request: Request, received_at: int) -> Result:
        snapshot = parse(request.body)
        key = (snapshot.install_id or "", snapshot.push_seq)
        legacy = snapshot.install_id is None
        known = self._pushes.get(key)
        if (
            known is not None
            and known.body_hash != snapshot.body_hash
            and not same_document(known.body, snapshot.body)
        ):
            return Conflict("install-cloned", "two devices share an identity")
        if known is not None or (legacy and snapshot.body_hash in self._bodies):
            return Applied("unchanged", self.job, self.job.rev, INCARNATION, received_at, replayed=True)
        stated = {
            scope
            for (install, seq), other in self._pushes.items()
            if install == snapshot.install_id and seq > snapshot.push_seq
            for scope in other.scopes
        }
        based = parse_etag(snapshot.base) if snapshot.base else None
        push = merge.Push(
            install=snapshot.install_id or f"legacy:{request.user}",
            seq=self.job.rev + 1 if legacy else snapshot.push_seq,
            base=based[1] if based else 0,
            received_at=received_at,
            scopes=snapshot.scopes,
            legacy=legacy,
            created=snapshot.created,
            updated=snapshot.updated,
            aborted=snapshot.aborted,
            abort_value=snapshot.abort_value,
            sent_at=snapshot.sent_at,
            confirm=snapshot.confirm,
            stated=frozenset(stated),
        )
        merged = merge.apply(self.job, push)
        assert merged.job.rev == self.job.rev + bool(merged.edits or merged.changed)
        self.job = stored(merged.job)
        if legacy:
            self._bodies.add(snapshot.body_hash)
        else:
            self._pushes[key] = snapshot
        return Applied("merged", self.job, self.job.rev, INCARNATION, received_at, merged.offset, push=push)

    def change(self, kind: Change, scopes: Mapping[str, Part], received_at: int) -> bool:
        job = self.job
        if not job.rev or (kind == "abort" and completed(job)) or (job.aborted and "status" in scopes):
            return False
        if kind == "reopen":
            self.job = stored(merge.reopen(job, received_at).job)
            return True
        push = merge.Push(
            install=SERVER,
            seq=job.rev + 1,
            base=job.rev,
            received_at=received_at,
            scopes=scopes,
            aborted=kind == "abort",
            abort_value=b'{"status":"Aborted","abandonReason":null}',
        )
        self.job = stored(merge.apply(job, push).job)
        return True

    def read(self) -> Reply:
        if not self.job.rev:
            return not_found()
        return Reply(200, job_document(self.job.view, INCARNATION, self.job.rev), rev=self.job.rev)


def not_found() -> Reply:
    return Reply(404, b'{"code":"job-not-found","retry":"never"}')


def stored(job: Job) -> Job:
    """``job`` as it comes back from its stored form."""
    return unpack(
        pack(job),
        job.view,
        job_id=job.job_id,
        client_job_id=job.client_job_id,
        rev=job.rev,
        created_at=job.created_at,
        modified_at=job.modified_at,
    )


class Site:
    """An open database, its ingest, and a loop to run them in; every test takes teams of its own."""

    def __init__(self, url: str) -> None:
        self.loop = asyncio.Runner()
        self.database: Database = open_database(url)
        self.loop.run(self.database.migrate())
        self._teams = 0

    def team(self) -> Caller:
        """A caller of a new, empty team."""
        self._teams += 1
        name = f"team-{self._teams}"
        team_id = self.write(insert_team, name, 0)
        return Caller(team_id, name, "user", own_work_only=False)

    def submit(self, *items: PushItem | ChangeItem | Any) -> list[Result]:
        """Apply items that come at the same moment: one group commit."""

        async def together() -> list[Result]:
            ingest = Ingest(self.database)
            try:
                return list(await asyncio.gather(*[ingest.submit(item) for item in items]))
            finally:
                await ingest.close()

        return self.loop.run(together())

    def batch(self, *items: Any) -> list[Result]:
        """Apply items in one transaction, whatever the ingest would make of them."""
        results: list[Result] = self.write(apply_batch, list(items))
        return results

    def read(self, query: Any, *arguments: Any) -> Any:
        return self.loop.run(self.database.read(query, *arguments))

    def write(self, work: Any, *arguments: Any) -> Any:
        return self.loop.run(self.database.write(work, *arguments))

    def close(self) -> None:
        self.loop.run(self.database.close())
        self.loop.close()


def etag_of(connection: Connection, team_id: int, client_job_id: str) -> str | None:
    """The job's current ETag; None if there is no such job."""
    row = job_queries.by_client_job_id(connection, team_id, client_job_id)
    return None if row is None else format_etag(incarnation(connection, team_id), row.rev)


class IngestServer:
    """One job of a new team of a :class:`Site`."""

    def __init__(self, site: Site, client_job_id: str) -> None:
        self.site = site
        self.caller = site.team()
        self.client_job_id = client_job_id

    def push(self, requests: Sequence[Request], received_at: int) -> list[Reply]:
        items = [
            PushItem(
                Caller(self.caller.team_id, self.caller.team_name, request.user, own_work_only=False),
                parse(request.body),
                received_at,
            )
            for request in requests
        ]
        results = self.site.submit(*items)
        return [reply_to(request, result) for request, result in zip(requests, results, strict=True)]

    def change(self, kind: Change, scopes: Mapping[str, Part], received_at: int) -> bool:
        item = ChangeItem(
            self.caller, self.client_job_id, received_at, kind, scopes=lambda _job: scopes, body=b"{}"
        )
        (result,) = self.site.submit(item)
        assert isinstance(result, Applied | Conflict | NotFound)
        return isinstance(result, Applied)

    def read(self) -> Reply:
        row = self.site.read(job_queries.by_client_job_id, self.caller.team_id, self.client_job_id)
        if row is None:
            return not_found()
        etag = self.site.read(etag_of, self.caller.team_id, self.client_job_id)
        return Reply(200, job_document(row.view, etag.strip('"').partition(".")[0], row.rev), rev=row.rev)


def at(moment: int) -> str:
    """``moment``, microseconds, as a client writes it."""
    return datetime.fromtimestamp(moment / 1_000_000, UTC).isoformat(timespec="milliseconds")
