"""Answers in the shape in which a query asks for them, and what the arguments of lists share."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from server.query.documents import QueryProblem
from server.query.selecting import Field
from sync.values import format_time

T = TypeVar("T")

#: Field -> what it tells of an object.
Tellers = Mapping[str, Callable[[T], Any]]


def shaped(fields: Sequence[Field], tell: Callable[[Field], Any]) -> dict[str, Any]:
    """An object with the selected fields in their order.

    Args:
        tell: the value of a field, nested objects shaped already. It is not asked for ``__typename``.
    """
    return {field.key: field.of if field.name == "__typename" else tell(field) for field in fields}


def told(fields: Sequence[Field], tellers: Tellers[T], row: T) -> dict[str, Any]:
    """An object without others in it."""
    return shaped(fields, lambda field: tellers[field.name](row))


def time_or_none(at: int | None) -> str | None:
    """A time as it is printed."""
    return None if at is None else format_time(at)


def selected(fields: Sequence[Field], *names: str) -> bool:
    """Whether one of these fields is asked for, under whatever key."""
    return any(field.name in names for field in fields)


def skip_and_limit(field: Field, usual: int, most: int) -> tuple[int, int]:
    """``skip`` and ``limit``; null is as if nothing was given.

    Raises:
        QueryProblem: ``invalid-argument``.
    """
    skip = field.arguments.get("skip") or 0
    if skip < 0:
        raise refused(field, "skip must be 0 or more.")
    return skip, limit_of(field, usual, most)


def limit_of(field: Field, usual: int, most: int) -> int:
    """``limit``; null is as if nothing was given.

    Raises:
        QueryProblem: ``invalid-argument``.
    """
    given = field.arguments.get("limit")
    limit: int = usual if given is None else given
    if not 1 <= limit <= most:
        raise refused(field, f"limit must be from 1 to {most:,}.")
    return limit


def refused(field: Field, message: str) -> QueryProblem:
    """The refusal of an argument of this field."""
    return QueryProblem.of("invalid-argument", message, (field.key,))
