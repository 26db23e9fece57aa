"""Answers: a job's view with the members of ``sync`` that belong to one caller or one revision.

The view ends with ``"sync":{…}}``; an answer puts its members before the last two bytes, so that the
document itself is never encoded again.
"""

from typing import Any

import msgspec

from sync import merge
from sync.etag import format_etag
from sync.items import Applied
from sync.values import format_time

_encode = msgspec.json.encode
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])


def job_document(view: bytes, incarnation: str, rev: int) -> bytes:
    """A job as it is read: the view with ``sync.rev`` and ``sync.etag``."""
    return b'%s,"rev":%d,"etag":%s}}' % (view[:-2], rev, _encode(format_etag(incarnation, rev)))


def push_answer(applied: Applied, minimal: bool = False) -> bytes:
    """The answer to a push: the merged job with ``sync``, or (``Prefer: return=minimal``) ``sync`` alone."""
    job = applied.job
    answer: dict[str, Any] = {
        "rev": applied.rev,
        "etag": format_etag(applied.incarnation, applied.rev),
        "action": applied.action,
        "replayed": applied.replayed,
        "reset": applied.reset,
        "missingResources": job.missing if job else [],
        "serverTime": format_time(applied.received_at),
        "clockOffsetSeconds": round(applied.offset / 1_000_000, 3),
    }
    if applied.warnings:
        answer["warnings"] = applied.warnings
    if job is None:
        # A replay of a push to a job that was deleted since: it was applied then.
        return _encode({"sync": {**answer, "deleted": True}})
    if not minimal:
        return b"%s,%s}" % (job.view[:-2], _encode(answer)[1:])
    answer["inSync"] = applied.push is not None and merge.in_sync(job, applied.push)
    shown = _members.decode(_members.decode(job.view)["sync"])
    return _encode({"jobId": job.job_id, "clientJobId": job.client_job_id, "sync": {**shown, **answer}})
