"""What the arguments of ``jobs`` ask for (section 3.5.2)."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from server.query.documents import QueryProblem
from server.query.selecting import Field
from storage.queries.completed_jobs import Wanted
from sync.cursor import mark_of, parse_cursor
from sync.values import parse_time

MAX_LIMIT = 100
#: Values in one list.
MAX_VALUES = 100
#: Of each of these at most one may be given.
_GROUPS = (
    ("workflowId", "workflowTitle", "workflowTag", "workflowTagsOr", "workflowTagsAnd"),
    ("userName", "userId"),
    ("jobTitle", "jobId"),
)
#: Argument -> column.
_TEXTS = {
    "workflowId": "workflow_id",
    "workflowTitle": "workflow_title",
    "userId": "user_id",
    "userName": "user_name",
    "jobTitle": "job_title",
}
_TAGS = ("workflowTag", "workflowTagsOr", "workflowTagsAnd")
_TIMES = tuple(f"{time}{end}" for time in ("created", "updated", "modified") for end in ("Since", "Before"))
_LISTS = (*_TEXTS, *_TAGS, "jobId", "status")
#: What completed data is.
_COMPLETED = frozenset({"completed", "abandoned"})
#: By what jobs may be found that are not completed.
_OF_OPEN = frozenset(
    {"workflowId", "userId", "jobId", "status", "limit", "order", "cursor", "includeExcluded"}
)
_OPEN_CURSOR = re.compile(r"j[0-9a-f]{24}")


class JobsWanted(NamedTuple):
    """What is asked for.

    Attributes:
        completed: as it is asked of the completed jobs; its ``after`` is in ``cursor`` still.
        statuses: folded; empty for completed jobs of both statuses, ``any`` among them for all.
        tags: workflows that have these; ``every``: all of them, else one.
        cursor: as it was given.
        is_open: jobs of other statuses than these two together, in the order of creation.
    """

    completed: Wanted
    limit: int
    cursor: str | None
    statuses: frozenset[str]
    tags: Sequence[str]
    every: bool
    is_open: bool


def wanted(field: Field) -> JobsWanted:
    """Read the arguments.

    Raises:
        QueryProblem: ``invalid-argument``.
    """
    # Null is as if it was not given, also where that means a default.
    given: dict[str, Any] = {"limit": 50, "order": "asc", "includeExcluded": False}
    given |= {name: value for name, value in field.arguments.items() if value is not None}
    for group in _GROUPS:
        together = [name for name in group if name in given]
        if len(together) > 1:
            raise _refused(field, f"Only one of these may be given: {', '.join(together)}.")
    for name in _LISTS:
        _check_list(field, name, given.get(name))
    statuses = frozenset(status.casefold() for status in given.get("status", ()))
    is_open = bool(statuses) and statuses != _COMPLETED
    if is_open:
        others = sorted(given.keys() - _OF_OPEN)
        if others:
            raise _refused(
                field,
                "With a status (other than both Completed and Abandoned), jobs are found by workflowId, userId and jobId "
                f"only; not by {', '.join(others)}.",
            )
    limit, order = given["limit"], given["order"].casefold()
    if not 1 <= limit <= MAX_LIMIT:
        raise _refused(field, f"limit must be from 1 to {MAX_LIMIT}.")
    if order not in ("asc", "desc"):
        raise _refused(field, "order must be asc or desc.")
    times = {name: _time(field, name, given[name]) for name in _TIMES if name in given}
    tags = next((name for name in _TAGS if name in given), None)
    return JobsWanted(
        completed=Wanted(
            texts={column: tuple(given[name]) for name, column in _TEXTS.items() if name in given},
            job_ids=tuple(given["jobId"]) if "jobId" in given else None,
            since={name.removesuffix("Since"): at for name, at in times.items() if name.endswith("Since")},
            before={name.removesuffix("Before"): at for name, at in times.items() if name.endswith("Before")},
            descending=order == "desc",
            excluded=given["includeExcluded"],
        ),
        limit=limit,
        cursor=given.get("cursor"),
        statuses=statuses,
        tags=tuple(dict.fromkeys(given[tags])) if tags else (),
        every=tags == "workflowTagsAnd",
        is_open=is_open,
    )


def seq_of(field: Field, cursor: str, incarnation: str) -> int:
    """The number that a cursor stands for.

    Raises:
        QueryProblem: ``invalid-cursor``.
    """
    parsed = parse_cursor(cursor)
    if parsed is None:
        raise QueryProblem.of("invalid-cursor", "cursor is no completedJobCursor of a job.", (field.key,))
    mark, seq = parsed
    if mark != mark_of(incarnation):
        raise QueryProblem.of(
            "invalid-cursor",
            "cursor is of before this server was restored from a backup: begin again without it.",
            (field.key,),
        )
    return seq


def open_cursor_of(job_id: str) -> str:
    """``completedJobCursor`` where jobs come in the order of their creation."""
    return f"j{job_id}"


def job_id_of(field: Field, cursor: str) -> str:
    """The job that such a cursor stands for.

    Raises:
        QueryProblem: ``invalid-cursor``.
    """
    if not _OPEN_CURSOR.fullmatch(cursor):
        raise QueryProblem.of(
            "invalid-cursor",
            "cursor is none of a query for jobs of any status: their order is another one.",
            (field.key,),
        )
    return cursor[1:]


def _check_list(field: Field, name: str, values: Any) -> None:
    if values is None:
        return
    if len(values) > MAX_VALUES:
        raise _refused(field, f"{name} may have {MAX_VALUES} values; here are {len(values)}.")


def _time(field: Field, name: str, text: str) -> int:
    at = parse_time(text)
    if at is None:
        raise _refused(
            field, f"{name} must be a time: 2019-06-01T08:00:00.000Z, or with slashes in the date."
        )
    return at


def _refused(field: Field, message: str) -> QueryProblem:
    return QueryProblem.of("invalid-argument", message, (field.key,))


def by_tags(workflows: Mapping[str, Sequence[str]], tags: Sequence[str], every: bool) -> tuple[str, ...]:
    """Ids of the workflows with one of the tags, or all of them.

    Args:
        workflows: id -> tags.
    """
    sought = set(tags)
    if every:
        return tuple(key for key, held in workflows.items() if sought <= set(held))
    return tuple(key for key, held in workflows.items() if not sought.isdisjoint(held))
