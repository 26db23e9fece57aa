"""Setting up a team: its owner and a first client, in one transaction."""

from server import bodies
from server.auth.grants import hash_secret
from server.auth.passwords import generate_password, hash_password
from server.auth.policies import SCOPES
from server.clock import now
from server.errors import Problem
from storage.database import Connection, Database
from storage.ids import new_id, new_secret
from storage.queries.clients import NewClient, insert_client, insert_secret
from storage.queries.teams import insert_team, team_by_name
from storage.queries.users import NewUser, insert_user, user_by_username, username_key


async def create_team(database: Database, team: str, owner_email: str) -> dict[str, str]:
    """Create a team with an owner who signs in as ``owner_email``, and a client that may do everything.

    Returns:
        ``team``, ``owner``, ``password``, ``clientId``, ``clientSecret``. The password and the secret are
        kept as hashes only; this is the one time they are seen.

    Raises:
        ValueError: a team of this name or a user of this e-mail address exists, or one of them cannot be
            used; the message says which.
        storage.database.Unavailable: the database did not take it; nothing was kept.
    """
    try:
        team = bodies.name(team, "team")
        owner_email = bodies.email(owner_email, "owner")
    except Problem as problem:
        raise ValueError(problem.detail) from None
    password, client_id, client_secret = generate_password(), new_id(), new_secret()
    arguments = (team, owner_email, await hash_password(password), client_id, hash_secret(client_secret))
    # Another set-up may run at the same moment; then what it made is seen.
    await database.settle(_create, *arguments)
    return {
        "team": team,
        "owner": owner_email,
        "password": password,
        "clientId": client_id,
        "clientSecret": client_secret,
    }


def _create(
    connection: Connection, team: str, owner: str, password_hash: str, client_id: str, secret_hash: bytes
) -> None:
    if team_by_name(connection, team) is not None:
        raise ValueError(f"there is a team called {team!r} already")
    if user_by_username(connection, username_key(owner)) is not None:
        raise ValueError(f"there is a user called {owner!r} already; usernames are unique over all teams")
    at = now()
    team_id = insert_team(connection, team, at)
    insert_user(
        connection,
        NewUser(
            team_id=team_id,
            user_id=new_id(),
            username=owner,
            email_address=owner,
            name=owner,
            password_hash=password_hash,
            permissions=frozenset({"OWNER"}),
            created_at=at,
        ),
    )
    insert_client(
        connection,
        NewClient(
            team_id=team_id,
            client_id=client_id,
            display_name=f"{team} default client",
            scopes=tuple(sorted(SCOPES)),
            permissions=("OWNER",),
            created_at=at,
        ),
    )
    insert_secret(connection, team_id, client_id, new_id(), secret_hash, at)
