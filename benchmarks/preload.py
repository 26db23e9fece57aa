"""Jobs in bulk: one job is merged through its snapshots, then copied under other ids into the tables.

Ids have one length, so the stored blobs of a copy are the original's with the id's bytes replaced.
"""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from fixtures.jobs import bench_snapshot
from storage.database import Connection
from storage.queries import feed, jobs, pushes, snapshots
from storage.tables import teams
from sync import merge
from sync.bodies import compress
from sync.edits import FORMAT, Job, pack
from sync.snapshot import parse

FIRST_ID = "00000000-0000-4000-8000-000000000000"
FIRST_INSTALL = "10000000-0000-4000-8000-000000000000"
_JOB_ID = "f" * 24
_START = datetime(2026, 1, 5, 8, tzinfo=UTC)
_STARTED_US = int(_START.timestamp() * 1_000_000)


def snapshot_body(number: int, client_job_id: str = FIRST_ID) -> bytes:
    """The ``number``-th snapshot of a job (1 to 10): each has changed two steps and the header's time."""
    document = json.loads(json.dumps(bench_snapshot(FIRST_ID, started=_START)))
    document["metadata"]["clientJobId"] = client_job_id
    document["metadata"]["status"] = "Completed" if number == 10 else "InProgress"
    for turn in range(1, number + 1):
        at = (_START + timedelta(minutes=turn)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        document["metadata"]["updated"] = at
        for place in (turn % 5, (turn + 1) % 5):
            step = document["completedSteps"][place]["singleStep"]
            step["updated"] = at
            step["note"] = f"Seen {turn} times"
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def merged_after(count: int, team: str, user: str) -> tuple[Job, list[bytes]]:
    """A job after its first ``count`` snapshots, and those bodies."""
    job = Job(
        job_id=_JOB_ID, client_job_id=FIRST_ID, team=team, created_by=user, rev=0, scopes={}, writers=(user,)
    )
    bodies = []
    for number in range(1, count + 1):
        body = snapshot_body(number)
        snapshot = parse(body)
        push = merge.Push(
            FIRST_INSTALL,
            number,
            number - 1,
            _STARTED_US + number * 60_000_000,
            snapshot.scopes,
            created=snapshot.created,
            updated=snapshot.updated,
        )
        job = merge.apply(job, push).job
        bodies.append(body)
    return job, bodies


def fill(connection: Connection, first: int, count: int, template: Job, bodies: list[bytes]) -> None:
    """Insert ``count`` copies of ``template`` with their history, replay rows and feed entries."""
    team_id = connection.execute(teams.select().with_only_columns(teams.c.team_id)).scalars().first()
    assert team_id is not None
    view, edits = template.view, pack(template)
    rows: dict[str, list[Any]] = {"jobs": [], "snapshots": [], "pushes": []}
    ids = []
    for number in range(first, first + count):
        suffix = f"{number:012x}"
        client_job_id, install = FIRST_ID[:-12] + suffix, FIRST_INSTALL[:-12] + suffix
        job_id = f"{_STARTED_US // 1000:012x}{suffix}"
        ids.append(job_id)

        def renamed(blob: bytes, of: tuple[str, str, str] = (client_job_id, install, job_id)) -> bytes:
            for old, new in zip((FIRST_ID, FIRST_INSTALL, _JOB_ID), of, strict=True):
                blob = blob.replace(old.encode(), new.encode())
            return blob

        rows["jobs"].append(
            jobs.JobWrite(
                team_id=team_id,
                job_id=job_id,
                client_job_id=client_job_id,
                rev=template.rev,
                owner_id=f"user-{number % 100}",
                workflow_id=f"workflow-{number % 20}",
                finished=False,
                status="inprogress",
                excluded=False,
                created_at=_STARTED_US,
                modified_at=template.modified_at,
                deleted_at=None,
                format=FORMAT,
                view=renamed(view),
                edits=renamed(edits),
            )
        )
        for seq, body in enumerate(bodies, start=1):
            body_hash = number.to_bytes(12, "big") + seq.to_bytes(4, "big")
            common = {
                "team_id": team_id,
                "received_at": _STARTED_US,
                "clock_offset": 0,
                "body_hash": body_hash,
            }
            rows["snapshots"].append(
                snapshots.SnapshotWrite(
                    **{
                        **common,
                        "job_id": job_id,
                        "snapshot_id": f"{_STARTED_US // 1000:012x}{number:08x}{seq:04x}",
                        "rev": seq,
                        "install_id": install,
                        "push_seq": seq,
                        "size": len(body),
                        "body": compress(renamed(body)),
                    }
                )
            )
            rows["pushes"].append(
                pushes.PushWrite(
                    **{
                        **common,
                        "install_id": install,
                        "push_seq": seq,
                        "client_job_id": client_job_id,
                        "rev": seq,
                    }
                )
            )
    jobs.write(connection, rows["jobs"])
    if bodies:
        snapshots.insert(connection, rows["snapshots"])
        pushes.insert(connection, rows["pushes"])
    feed.stamp(connection, team_id, ids)
