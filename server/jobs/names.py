"""What a workflow's version calls the steps of a job: read once, and kept while it is used."""

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import msgspec

from storage.database import Connection, Database
from storage.queries import workflows as queries
from sync.facts import Names, StepName

#: Compressed names, bytes: more is not unpacked on the event loop.
_MUCH = 16 * 1024
#: What the names that are kept may take: those of one workflow of the largest size, or of hundreds of usual ones.
KEPT_BYTES = 64 * 1024 * 1024
#: What a step takes beside the bytes of its JSON: strings, a tuple, a place in the dictionary.
_STEP_BYTES = 300

_names = msgspec.json.Decoder(dict[str, StepName])


class KeptNames:
    """The names that were used last, of all teams; those of a version never change.

    Args:
        most: bytes, about.
    """

    def __init__(self, most: int = KEPT_BYTES) -> None:
        self._most = most
        self._kept: OrderedDict[tuple[int, str], tuple[Names, int]] = OrderedDict()
        self.bytes = 0

    def get(self, team_id: int, version_id: str) -> Names | None:
        found = self._kept.get((team_id, version_id))
        if found is None:
            return None
        self._kept.move_to_end((team_id, version_id))
        return found[0]

    def keep(self, team_id: int, version_id: str, names: Names, size: int) -> None:
        """Keep names whose JSON has ``size`` bytes; those that were not used for longest go."""
        size += _STEP_BYTES * len(names)
        if size > self._most or (team_id, version_id) in self._kept:
            return
        self._kept[team_id, version_id] = names, size
        self.bytes += size
        while self.bytes > self._most:
            _, (_, freed) = self._kept.popitem(last=False)
            self.bytes -= freed


#: Of the whole process: ids of versions are different in all databases.
_kept = KeptNames()


def naming_versions(
    connection: Connection, team_id: int, heads: Mapping[str, Mapping[str, Any]]
) -> dict[str, str]:
    """The versions of workflows that name the steps of jobs; jobs that have none are left out.

    Args:
        heads: ``metadata`` of the jobs' documents, by whatever is to be the key of the answer.
    """
    meant = {key: pair for key, head in heads.items() if (pair := _meant(head)) is not None}
    found = queries.naming_versions(connection, team_id, set(meant.values())) if meant else {}
    return {key: found[pair] for key, pair in meant.items() if pair in found}


def naming_version(connection: Connection, team_id: int, document: Mapping[str, Any]) -> str | None:
    """The version of a workflow that names the steps of a job, if there is one."""
    return naming_versions(connection, team_id, {"": document["metadata"]}).get("")


def _meant(head: Mapping[str, Any]) -> tuple[str, str | None] | None:
    """The workflow and the version that a job names."""
    workflow_id = searchable(head.get("workflowId"))
    return None if workflow_id is None else (workflow_id, searchable(head.get("workflowVersionId")))


def searchable(value: Any) -> str | None:
    """An id that a database can be asked for. PostgreSQL's text has no NUL."""
    return value if isinstance(value, str) and value and "\0" not in value else None


async def names_of(database: Database, team_id: int, version_id: str) -> Names | None:
    """The names of a version; None if nobody could read it."""
    known = _kept.get(team_id, version_id)
    if known is not None:
        return known
    packed = await database.read(queries.step_names, team_id, version_id)
    if packed is None:
        return None
    names, size = await asyncio.to_thread(_unpacked, packed) if len(packed) > _MUCH else _unpacked(packed)
    _kept.keep(team_id, version_id, names, size)
    return names


def _unpacked(packed: bytes) -> tuple[Names, int]:
    """Names, and how many bytes their JSON has."""
    json = queries.decompressed(packed)
    return _names.decode(json), len(json)
