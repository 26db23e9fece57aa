"""The caller of a request."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["user", "client"]

_TEAM_WIDE = frozenset({"OWNER", "ADMIN"})


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls, with what: the subject as the database has it now, the scopes as the token has them.

    Attributes:
        subject_id: the user's or the client's id.
        username: for a client, its display name.
        permissions: upper case.
        scopes: last path segments, lower case.
        group_ids: the groups of a user.
    """

    team_id: int
    team_name: str
    subject_id: str
    kind: Kind
    username: str
    permissions: frozenset[str]
    scopes: frozenset[str]
    group_ids: frozenset[str] = frozenset()

    @property
    def own_work_only(self) -> bool:
        """Whether the caller sees only what is its own: anyone who is neither owner nor administrator."""
        return self.permissions.isdisjoint(_TEAM_WIDE)
