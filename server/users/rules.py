"""What holds for every change to a user, and how a user is printed."""

import msgspec

from server.errors import Problem
from storage.database import Connection
from storage.queries import users as queries
from storage.queries.teams import lock_team
from storage.queries.users import Person, UserRow
from sync.values import format_time

TAGS = ["Users"]
#: The document prints Trigger_Admin for everything but reading. That would let a token made for triggers
#: create users.
POLICY = {"policy": "Team_Admin"}


class User(msgspec.Struct, rename="camel"):
    """A user as section 13.2 prints it."""

    user_id: str
    username: str
    email_address: str
    name: str
    created: str
    locked: bool


def printed(user: UserRow | Person) -> User:
    """``user`` as an answer."""
    return User(
        user_id=user.user_id,
        username=user.username,
        email_address=user.email_address,
        name=user.name,
        created=format_time(user.created_at),
        locked=user.locked,
    )


def not_found() -> Problem:
    """The refusal of an id that is no user's, of the team's deleted ones or another team's."""
    return Problem(404, "no-such-user", "The team has no such user.")


def load_for_update(connection: Connection, team_id: int, user_id: str) -> UserRow:
    """The team's user, held until the transaction ends, and the team with it.

    Raises:
        Problem: 404.
    """
    # The team first: two owners who lock each other must not both succeed.
    lock_team(connection, team_id)
    user = queries.user_for_update(connection, team_id, user_id)
    if user is None:
        raise not_found()
    return user


def only_by_owners(user: UserRow, by_owner: bool, field: str | None = None) -> None:
    """Refuse what an administrator must not do to an owner: it would be a way to become one, or to get
    the better of one.

    Raises:
        Problem: 403 ``insufficient-permission``.
    """
    if "OWNER" in user.permissions and not by_owner:
        raise Problem(
            403,
            "insufficient-permission",
            "This user is an owner. Only an owner may do this; ask one of the team's owners.",
            field=field,
        )


def keep_an_owner(connection: Connection, user: UserRow) -> None:
    """Refuse what would leave the team without an owner who can sign in: nobody could ever make one.

    Raises:
        Problem: 409 ``last-owner``.
    """
    if "OWNER" not in user.permissions or user.locked:
        return
    if not queries.other_active_owners(connection, user.team_id, user.user_id):
        raise Problem(409, "last-owner", "This is the team's last owner. Make another user an owner first.")
