"""Triggers: chapter 12 of the primary specification, and the rotation of their secrets."""

import asyncio
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import msgspec
from litestar import Response, delete, get, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath

from server import bodies
from server.auth.principal import Principal
from server.clock import now
from server.errors import Problem
from server.http import json_response, optional_page
from server.settings import Settings
from server.triggers import deliveries, executing, shapes
from server.triggers.receivers import ForbiddenReceiver, Receivers
from server.triggers.secrets import (
    KEEP_SECONDS,
    MAX_KEEP_SECONDS,
    checked_secret,
    new_secret,
    rotated,
    secret_in_use,
)
from server.triggers.shapes import ADMIN, HTTP, READ, TAGS, Asked, PrintedTrigger, TriggerRequest, texts
from storage.database import Connection, Database
from storage.ids import new_id
from storage.queries import report_templates
from storage.queries import triggers as queries
from storage.queries.teams import lock_team
from storage.queries.triggers import TriggerRow
from storage.queries.workflows import known_objects
from sync.values import format_time

_RESOLVE_SECONDS = 5
_SECOND = 1_000_000

_MEMBERS = """
- `triggerType`: `Email` or `Http`.
- `triggerOptions` of an Email trigger: `recipients`, addresses in one text, separated by `,` or `;`, and
  `sendCopyToUser`, a mail to the job's user. Of an Http trigger: `url`, `headers` (sent along; their values are
  answered as `***`), `onUpdate` (also whenever a job changes), `secret` (`whsec_` and base64; made if none
  is sent).
- `templateIds` (workflows), `templateTags` (their tags), `objectIds` (users, and groups of users): the job matches
  each list that is not empty.
- `pdfRequirement`: `NotRequired`, `FullImages`, `Thumbnails` or `WithoutImages`; `reportTemplateId` or null.
- `disabled`. One that is enabled must be complete: an Http trigger has a url, an Email trigger recipients or
  sendCopyToUser.
"""


class Rotation(msgspec.Struct, rename="camel"):
    """What can be said about a rotation: the new secret, and how long the old ones sign beside it."""

    secret: str | None = None
    keep_seconds: int | None = None


class NewSecret(msgspec.Struct, rename="camel"):
    """The answer to a rotation. ``oldSecretsUntil`` is null if none signs beside the new one."""

    trigger_id: str
    secret: str
    old_secrets_until: str | None


@get(
    "/trigger/v2",
    opt=READ,
    tags=TAGS,
    summary="List triggers",
    description="Newest first, archived ones too; all of them without `limit`. Query parameters: `skip`, `limit`.",
)
async def list_triggers(request: TriggerRequest, database: NamedDependency[Database]) -> Response[bytes]:
    """Section 12.1."""
    rows = await database.read(queries.page, request.user.team_id, *optional_page(request))
    return _answer([shapes.printed(row) for row in rows])


@get(
    "/trigger/v2/{trigger_id:str}",
    opt=READ,
    tags=TAGS,
    summary="Get a trigger",
    description="A list of one, as section 12.2 prints it.",
)
async def get_trigger(
    request: TriggerRequest, trigger_id: FromPath[str], database: NamedDependency[Database]
) -> Response[bytes]:
    """Section 12.2."""
    row = await database.read(queries.one, request.user.team_id, trigger_id)
    if row is None:
        raise shapes.not_found()
    return _answer([shapes.printed(row)])


@post(
    "/trigger/v2",
    status_code=200,
    opt=ADMIN,
    tags=TAGS,
    summary="Create a trigger",
    description=f"`name` and `triggerType` are enough for a disabled one.\n{_MEMBERS}\n"
    "The answer to an Http trigger is the only one with its `triggerOptions.secret`: keep it.",
)
async def create_trigger(
    request: TriggerRequest, database: NamedDependency[Database], settings: NamedDependency[Settings]
) -> Response[bytes]:
    """Section 12.3."""
    asked = shapes.checked(await request.body())
    await _check_receiver(asked, settings, request.user.team_id)
    trigger_id = new_id()
    written = await database.settle(_create, request.user, trigger_id, asked, now())
    return _answer(shapes.printed(written.row, written.secret))


@put(
    "/trigger/v2/{trigger_id:str}",
    status_code=200,
    opt=ADMIN,
    tags=TAGS,
    summary="Update a trigger",
    description=f"What is not sent stays, inside `triggerOptions` too; `headers` are replaced as a whole.\n{_MEMBERS}\n"
    "Enabling a trigger, or giving it another url, sends what waits at once.",
)
async def update_trigger(
    request: TriggerRequest,
    trigger_id: FromPath[str],
    database: NamedDependency[Database],
    settings: NamedDependency[Settings],
) -> Response[bytes]:
    """Section 12.4; answers the trigger, with its secret if this request made one."""
    asked = shapes.checked(await request.body())
    await _check_receiver(asked, settings, request.user.team_id)
    written = await database.settle(_update, request.user.team_id, trigger_id, asked, now())
    return _answer(shapes.printed(written.row, written.secret))


@delete(
    "/trigger/v2/{trigger_id:str}",
    status_code=200,
    opt=ADMIN,
    tags=TAGS,
    summary="Archive a trigger",
    description="It fires no more, and what it has yet to deliver waits. It stays in the list.",
)
async def archive_trigger(
    request: TriggerRequest, trigger_id: FromPath[str], database: NamedDependency[Database]
) -> Response[bytes]:
    """Section 12.5. Archiving an archived one is no error."""
    await database.settle(_set_archived, request.user.team_id, trigger_id, True, now())
    return Response(b"", status_code=200)


@put(
    "/trigger/v2/unarchive/{trigger_id:str}",
    status_code=200,
    opt=ADMIN,
    tags=TAGS,
    summary="Unarchive a trigger",
    description="It fires again unless it is disabled, and what it had yet to deliver is sent.",
)
async def unarchive_trigger(
    request: TriggerRequest,
    trigger_id: FromPath[str],
    database: NamedDependency[Database],
) -> Response[bytes]:
    """Section 12.6; answers the trigger."""
    row = await database.settle(_set_archived, request.user.team_id, trigger_id, False, now())
    return _answer(shapes.printed(row))


@post(
    "/trigger/v2/{trigger_id:str}/secret",
    status_code=200,
    opt=ADMIN,
    tags=TAGS,
    summary="Rotate the secret of a trigger",
    description="`secret` (made if none is sent) signs from now on. The old ones sign beside it for `keepSeconds` "
    "(a day; 0 to 7 days), so that the receiver can be told meanwhile. The body may be empty.",
)
async def rotate_secret(
    request: TriggerRequest, trigger_id: FromPath[str], database: NamedDependency[Database]
) -> Response[bytes]:
    """Answers the new secret; it is not shown again."""
    content = await request.body()
    asked = bodies.decode(content, Rotation) if content.strip() else Rotation()
    keep = KEEP_SECONDS if asked.keep_seconds is None else asked.keep_seconds
    if not 0 <= keep <= MAX_KEEP_SECONDS:
        raise bodies.invalid("keepSeconds", f"keepSeconds must be between 0 and {MAX_KEEP_SECONDS:,}.")
    secret = new_secret() if asked.secret is None else checked_secret(asked.secret, "secret")
    at = now()
    until = at + keep * _SECOND
    await database.settle(_rotate, request.user.team_id, trigger_id, secret, at, until)
    return _answer(NewSecret(trigger_id, secret, format_time(until) if keep else None))


class _Written(NamedTuple):
    """A trigger as it is now, and the secret that was made for it, if any."""

    row: TriggerRow
    secret: str | None


def _create(connection: Connection, user: Principal, trigger_id: str, asked: Asked, at: int) -> _Written:
    lock_team(connection, user.team_id)
    blank = shapes.new(trigger_id, user.subject_id, at)
    row = shapes.changed(blank, asked, at)
    _check_references(connection, user.team_id, blank, row)
    written = _with_secret(row, asked, at)
    queries.add(connection, user.team_id, written.row)
    queries.note_wants(connection, user.team_id)
    return written


def _update(connection: Connection, team_id: int, trigger_id: str, asked: Asked, at: int) -> _Written:
    before = load_for_update(connection, team_id, trigger_id)
    row = shapes.changed(before, asked, at)
    _check_references(connection, team_id, before, row)
    written = _with_secret(row, asked, at)
    elsewhere = row.settings.get("url") != before.settings.get("url")
    _save(connection, team_id, written.row, at, resumed=row.live and (elsewhere or not before.live))
    return written


def _set_archived(
    connection: Connection, team_id: int, trigger_id: str, archived: bool, at: int
) -> TriggerRow:
    row = load_for_update(connection, team_id, trigger_id)
    if row.archived == archived:
        return row
    row = row._replace(archived=archived, updated_at=at)
    _save(connection, team_id, row, at, resumed=row.live)
    return queries.one(connection, team_id, trigger_id) or row


def _rotate(connection: Connection, team_id: int, trigger_id: str, secret: str, at: int, until: int) -> None:
    row = load_for_update(connection, team_id, trigger_id)
    if row.trigger_type != HTTP:
        raise Problem(409, "trigger-not-http", "Only an Http trigger has a secret.")
    stored = rotated(row.secrets, secret, at, until)
    queries.change(connection, team_id, trigger_id, secrets=stored, updated_at=at)


def load_for_update(connection: Connection, team_id: int, trigger_id: str) -> TriggerRow:
    """The trigger, which nobody else changes before the transaction ends.

    Raises:
        Problem: 404 ``no-such-trigger``.
    """
    lock_team(connection, team_id)
    row = queries.one(connection, team_id, trigger_id, lock=True)
    if row is None:
        raise shapes.not_found()
    return row


def _save(connection: Connection, team_id: int, row: TriggerRow, at: int, *, resumed: bool) -> None:
    """Write a trigger; ``resumed``: it sends again, or elsewhere, so that what failed until now is over."""
    if resumed:
        row = row._replace(failing_since=None)
        queries.resume(connection, team_id, row.trigger_id, at)
    queries.save(connection, team_id, row)
    queries.note_wants(connection, team_id)


def _with_secret(row: TriggerRow, asked: Asked, at: int) -> _Written:
    """The trigger with a secret if it is to have one: the one that was sent, the one it has, or a new one."""
    if row.trigger_type != HTTP:
        return _Written(row._replace(secrets=None), None)
    sent = asked.trigger_options.secret if asked.trigger_options else None
    known = secret_in_use(row.secrets)
    if known is not None and sent in (None, known):
        return _Written(row, None)
    secret = sent or new_secret()
    stored = rotated(row.secrets, secret, at, at + KEEP_SECONDS * _SECOND)
    return _Written(row._replace(secrets=stored), secret)


def _check_references(connection: Connection, team_id: int, before: TriggerRow, row: TriggerRow) -> None:
    """Refuse people and report templates that the team does not have. Those that the trigger has already may
    stay: sending back what was read must work, and a trigger kept to a group that was deleted must not fire for
    everybody. Workflows may be unknown: jobs of workflows that were never uploaded are synced as well.

    Raises:
        Problem: 422 ``unknown-objects`` or ``unknown-report-template``.
    """
    wanted = set(texts(row.object_ids)) - set(texts(before.object_ids))
    unknown = sorted(wanted - known_objects(connection, team_id, wanted))
    if unknown:
        raise Problem(
            422,
            "unknown-objects",
            f"The team has no users or groups {', '.join(unknown)}. Nothing was changed.",
            field="objectIds",
            extra={"unknown": unknown},
        )
    template_id = row.report_template_id
    if template_id is not None and template_id != before.report_template_id:
        found = report_templates.current(connection, team_id, template_id)
        if found is None or found[0].archived:
            raise Problem(
                422,
                "unknown-report-template",
                "The team has no such report template, or it is archived. Nothing was changed.",
                field="reportTemplateId",
            )


@cache
def _receivers(networks: tuple[str, ...], ports: tuple[str, ...]) -> Receivers:
    """One for all requests: it has threads of its own."""
    return Receivers(networks, ports)


async def _check_receiver(asked: Asked, settings: Settings, team_id: int) -> None:
    """Refuse a url that leads where webhooks must not go. A name that does not resolve yet may later; each
    attempt looks again.

    Raises:
        Problem: 422 ``receiver-forbidden``.
    """
    url = asked.trigger_options.url if asked.trigger_options else None
    if not url:
        return
    receivers = _receivers(settings.webhook_networks, settings.webhook_ports)
    try:
        target = receivers.target(url)
        async with asyncio.timeout(_RESOLVE_SECONDS):
            await receivers.resolve(target.host, target.port, team_id)
    except ForbiddenReceiver as error:
        raise Problem(422, "receiver-forbidden", str(error), field="triggerOptions.url") from None
    except OSError:
        pass  # timeouts are such errors, too


def _answer(value: PrintedTrigger | Sequence[PrintedTrigger] | NewSecret) -> Response[bytes]:
    return json_response(msgspec.json.encode(value))


route_handlers = [
    list_triggers,
    get_trigger,
    create_trigger,
    update_trigger,
    archive_trigger,
    unarchive_trigger,
    rotate_secret,
    *executing.route_handlers,
    *deliveries.route_handlers,
]
