"""What section 12 takes and answers, and what its routes share."""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from litestar import Request
from msgspec import UNSET, UnsetType

from server import bodies
from server.auth.principal import Principal
from server.errors import Problem
from server.triggers import options
from server.triggers.options import Options
from server.workflows.intake import Truth, truth
from storage.queries.triggers import TriggerRow
from sync.values import format_time

TAGS = ["Triggers"]
READ = {"policy": "Trigger_Read"}
ADMIN = {"policy": "Trigger_Admin"}

MAX_DESCRIPTION = 1_000
#: Entries of a list, and characters of an entry.
MAX_ENTRIES = 200
MAX_ENTRY = 255

EMAIL, HTTP = "Email", "Http"
TYPES = (EMAIL, HTTP)
PDF_REQUIREMENTS = ("NotRequired", "FullImages", "Thumbnails", "WithoutImages")

TriggerRequest = Request[Principal, Any, Any]


class Asked(msgspec.Struct, rename="camel"):
    """The body of sections 12.3 and 12.4. What is null was not sent, but for what can be null."""

    name: str | None = None
    description: str | UnsetType | None = UNSET
    template_tags: list[str] | None = None
    object_ids: list[str] | None = None
    template_ids: list[str] | None = None
    trigger_type: str | None = None
    trigger_options: Options | None = None
    report_template_id: str | UnsetType | None = UNSET
    pdf_requirement: str | None = None
    disabled: Truth | None = None


class PrintedTrigger(msgspec.Struct, rename="camel"):
    """A trigger as sections 12.1 to 12.3 print it, and what we add."""

    trigger_id: str
    created: str
    updated: str
    name: str
    description: str | None
    template_tags: list[str]
    object_ids: list[str]
    template_ids: list[str]
    trigger_type: str
    trigger_options: dict[str, Any]
    report_template_id: str | None
    pdf_requirement: str
    disabled: bool
    archived: bool
    disabled_reason: str | None
    failing_since: str | None


def checked(body: bytes) -> Asked:
    """What a request says of a trigger, each member right for itself.

    Raises:
        Problem: 422 ``invalid-body``.
    """
    asked = bodies.decode(body, Asked)
    if asked.name is not None:
        asked.name = bodies.name(asked.name, "name")
    if isinstance(asked.description, str):
        _check_description(asked.description)
    asked.template_tags = _entries(asked.template_tags, "templateTags")
    asked.object_ids = _entries(asked.object_ids, "objectIds")
    asked.template_ids = _entries(asked.template_ids, "templateIds")
    asked.trigger_type = _one_of(TYPES, asked.trigger_type, "triggerType")
    asked.pdf_requirement = _one_of(PDF_REQUIREMENTS, asked.pdf_requirement, "pdfRequirement")
    if isinstance(asked.report_template_id, str):
        # An empty text is what forms send for none.
        template_id = asked.report_template_id.strip() or None
        if template_id is not None and (len(template_id) > MAX_ENTRY or not template_id.isprintable()):
            raise bodies.invalid("reportTemplateId", "reportTemplateId must be the id of a report template.")
        asked.report_template_id = template_id
    if asked.trigger_options is not None:
        asked.trigger_options = options.checked(asked.trigger_options)
    return asked


def new(trigger_id: str, created_by: str, at: int) -> TriggerRow:
    """A trigger of which nothing was said yet: enabled, for all jobs, without a report."""
    return TriggerRow(
        trigger_id=trigger_id,
        name="",
        description=None,
        template_tags=b"[]",
        object_ids=b"[]",
        template_ids=b"[]",
        trigger_type="",
        options=b"{}",
        secrets=None,
        report_template_id=None,
        pdf_requirement=PDF_REQUIREMENTS[0],
        disabled=False,
        disabled_reason=None,
        archived=False,
        failing_since=None,
        created_by=created_by,
        created_at=at,
        updated_at=at,
    )


def changed(row: TriggerRow, asked: Asked, at: int) -> TriggerRow:
    """``row`` with what was asked; what was not said stays.

    Raises:
        Problem: 422 ``invalid-body`` when it has no name or type, or is enabled and cannot do its work.
    """
    if not (asked.name or row.name):
        raise bodies.invalid("name", "A trigger needs a name.")
    kind = asked.trigger_type or row.trigger_type
    if not kind:
        raise bodies.invalid("triggerType", f"A trigger needs a triggerType: {' or '.join(TYPES)}.")
    disabled = row.disabled if asked.disabled is None else truth(asked.disabled)
    said = asked.trigger_options or Options()
    settings = options.email(row.settings, said) if kind == EMAIL else options.http(row.settings, said)
    lacking = None if disabled else lack(kind, settings)
    if lacking is not None:
        raise bodies.invalid(lacking[0], f"{lacking[1]} Send it, or disabled: true.")
    return row._replace(
        name=asked.name or row.name,
        description=row.description if asked.description is UNSET else asked.description,
        template_tags=_kept(row.template_tags, asked.template_tags),
        object_ids=_kept(row.object_ids, asked.object_ids),
        template_ids=_kept(row.template_ids, asked.template_ids),
        trigger_type=kind,
        options=msgspec.json.encode(settings),
        report_template_id=(
            row.report_template_id if asked.report_template_id is UNSET else asked.report_template_id
        ),
        pdf_requirement=asked.pdf_requirement or row.pdf_requirement,
        disabled=disabled,
        disabled_reason=row.disabled_reason if disabled else None,
        updated_at=at,
    )


def printed(row: TriggerRow, secret: str | None = None) -> PrintedTrigger:
    """``row`` as it is answered.

    Args:
        secret: the secret that this request made: it is shown once.
    """
    shown = options.shown(row.settings)
    if secret is not None:
        shown["secret"] = secret
    return PrintedTrigger(
        trigger_id=row.trigger_id,
        created=format_time(row.created_at),
        updated=format_time(row.updated_at),
        name=row.name,
        description=row.description,
        template_tags=texts(row.template_tags),
        object_ids=texts(row.object_ids),
        template_ids=texts(row.template_ids),
        trigger_type=row.trigger_type,
        trigger_options=shown,
        report_template_id=row.report_template_id,
        pdf_requirement=row.pdf_requirement,
        disabled=row.disabled,
        archived=row.archived,
        disabled_reason=row.disabled_reason,
        failing_since=None if row.failing_since is None else format_time(row.failing_since),
    )


texts: Callable[[bytes], list[str]] = msgspec.json.Decoder(list[str]).decode


def not_found() -> Problem:
    """The one answer for a trigger that is not there or not the team's."""
    return Problem(404, "no-such-trigger", "There is no such trigger.")


def archived() -> Problem:
    """The refusal of what an archived trigger does not do."""
    return Problem(409, "trigger-archived", "The trigger is archived. Take it out of the archive first.")


def lack(kind: str, settings: Mapping[str, Any]) -> tuple[str, str] | None:
    """What a trigger lacks to do its work: the member and what to say of it; None: it is complete."""
    if kind == HTTP and not settings.get("url"):
        return "triggerOptions.url", "An Http trigger needs a url to do its work."
    if kind == EMAIL and not (settings.get("recipients") or settings.get("sendCopyToUser")):
        return (
            "triggerOptions.recipients",
            "An Email trigger needs recipients or sendCopyToUser to do its work.",
        )
    return None


def _check_description(text: str) -> None:
    if len(text) > MAX_DESCRIPTION:
        raise bodies.invalid(
            "description", f"description must not be longer than {MAX_DESCRIPTION:,} characters."
        )
    if not all(char.isprintable() or char in "\n\r\t" for char in text):
        raise bodies.invalid("description", "description must not hold control characters but line ends.")


def _entries(named: list[str] | None, field: str) -> list[str] | None:
    """Each entry once, in order, without the blanks around it."""
    if named is None:
        return None
    result = list(dict.fromkeys(entry.strip() for entry in named))
    if len(result) > MAX_ENTRIES:
        raise bodies.invalid(field, f"{field} takes at most {MAX_ENTRIES} entries.")
    for entry in result:
        if not entry or len(entry) > MAX_ENTRY or not entry.isprintable():
            raise bodies.invalid(
                field, f"An entry of {field} has 1 to {MAX_ENTRY} characters, all of them printable."
            )
    return result


def _one_of(names: tuple[str, ...], value: str | None, field: str) -> str | None:
    """``value`` as we spell it."""
    if value is None:
        return None
    for name in names:
        if name.lower() == value.strip().lower():
            return name
    raise bodies.invalid(field, f"{field} must be one of {', '.join(names)}.")


def _kept(stored: bytes, asked: list[str] | None) -> bytes:
    return stored if asked is None else msgspec.json.encode(asked)
