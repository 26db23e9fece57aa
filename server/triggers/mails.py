"""Mails of triggers: what a job was, with its report, to the people whom an administrator named."""

import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

import msgspec

from server.clock import now
from server.local_time import local, span
from server.mail import Attachment, Mail, Mailer, MailFailed, is_address, mailbox, one_line
from server.settings import Settings
from server.triggers.matching import user_id_of
from storage.blobs import BlobNotFound, BlobStore, BlobsUnavailable
from storage.blobs.store import ADDRESS_SECONDS
from storage.database import Connection, Database
from storage.queries import reports
from storage.queries.deliveries import DeliveryRow
from storage.queries.reports import ReportRow
from storage.queries.team_settings import default_timezone
from storage.queries.triggers import TriggerRow
from storage.queries.users import UserRow, user_by_id
from sync.values import parse_time

#: A larger report is a link: mail servers refuse large mails, and base64 adds a third.
MAX_ATTACHED = 10_000_000

_PDF = "application/pdf"
_SECOND = 1_000_000
_SEPARATORS = re.compile(r"[,;\r\n]")
_MAX_TITLE, _MAX_STATUS, _MAX_VALUE, _MAX_NAME = 140, 40, 2_000, 80
#: What only programs read (section 6.1.5).
_INTERNAL = {"ScheduledJobId", "ScheduledTaskId"}
_UNFIT_IN_FILE_NAMES = re.compile(r"[^\w .()+-]+")


class _Material(NamedTuple):
    """What a mail is made of, as the database knows it. ``user``: whose job it is."""

    zone: str
    user: UserRow | None
    report: ReportRow | None


class _Notice(NamedTuple):
    """What a mail says, without its form.

    Attributes:
        rows: names and values, the facts of the job first.
        remarks: sentences; ``link``: the words and the address of the report, where it is not attached.
    """

    title: str
    status: str
    rows: Sequence[tuple[str, str]]
    place: str | None
    remarks: Sequence[str]
    link: tuple[str, str] | None
    reason: str


async def send_mail(
    database: Database,
    blobs: BlobStore,
    mailer: Mailer,
    settings: Settings,
    team_id: int,
    trigger: TriggerRow,
    delivery: DeliveryRow,
) -> str | None:
    """Send one delivery of an Email trigger; answers what is to be said of recipients that did not get it.

    The Message-ID is made of the delivery's id: of two copies a mail program shows one.

    Raises:
        MailFailed: nobody got it. Permanent: nobody ever will; there are no recipients, or all are refused.
    """
    facts: dict[str, Any] = msgspec.json.decode(delivery.payload)
    found = await database.read(_material, team_id, facts, delivery.report_id)
    to, unfit = recipients(trigger.settings, found.user)
    if not to:
        raise MailFailed(
            "no recipient of the trigger has an e-mail address" if unfit else "the trigger has no recipients",
            permanent=True,
        )
    title = _title(facts, delivery)
    remarks = [delivery.note] if delivery.note else []
    attached: tuple[Attachment, ...] = ()
    link = None
    if delivery.report_id is not None and (found.report is None or found.report.blob_key is None):
        remarks.append("The report is not there any more.")
    elif found.report is not None and found.report.blob_key is not None:
        name = file_name(title)
        if (found.report.size or 0) <= MAX_ATTACHED:
            content = await _content(blobs, found.report.blob_key)
            attached = (Attachment(name, _PDF, content),) if content is not None else ()
            remarks.append("The report is attached." if attached else "The report is not there any more.")
        else:
            until = local(now() + ADDRESS_SECONDS * _SECOND, found.zone)
            address = blobs.get_url(found.report.blob_key, content_type=_PDF, file_name=name)
            link = (f"Download the report ({_size(found.report)}) until {until}", address)
    reason = f"You get this mail because of the trigger {_line(trigger.name)} of team {_line(facts.get('teamName'))}."
    notice = _Notice(
        title,
        _line(facts.get("status"))[:_MAX_STATUS],
        _rows(facts, found),
        _place(facts),
        remarks,
        link,
        reason,
    )
    mail = Mail(
        to=to[0],
        also_to=tuple(to[1:]),
        subject=": ".join(filter(None, (notice.title, notice.status))),
        text=_text(notice),
        html=_html(notice),
        attachments=attached,
    )
    refused = await mailer.send(mail, f"trigger-{delivery.delivery_id}")
    return _remark(len(to), refused, unfit)


def recipients(options: Mapping[str, Any], user: UserRow | None) -> tuple[list[str], int]:
    """The addresses of a trigger's mails, each once however it is spelled, and how many are none.

    Args:
        options: ``triggerOptions``: ``recipients`` is one text, separated by commas or semicolons;
            ``sendCopyToUser`` is true or ``"true"``.
        user: whose job it is.
    """
    given = [part.strip() for part in _SEPARATORS.split(str(options.get("recipients") or ""))]
    wants_copy = str(options.get("sendCopyToUser")).strip().casefold() == "true"
    if wants_copy and user is not None and not user.locked:
        given.append(user.email_address.strip())
    known: dict[str, str] = {}
    for address in filter(None, given):
        known.setdefault(mailbox(address), address)
    fit = [address for address in known.values() if is_address(address)]
    return fit, len(known) - len(fit)


def file_name(title: str) -> str:
    """What the report of a job of this title is called on somebody's disk."""
    fit = " ".join(_UNFIT_IN_FILE_NAMES.sub(" ", title).split())[:_MAX_NAME].strip(" .")
    return f"{fit or 'Report'}.pdf"


def _material(
    connection: Connection, team_id: int, facts: Mapping[str, Any], report_id: str | None
) -> _Material:
    user_id = user_id_of(connection, team_id, facts)
    return _Material(
        default_timezone(connection, team_id),
        user_by_id(connection, team_id, user_id) if user_id is not None else None,
        reports.one(connection, team_id, report_id) if report_id is not None else None,
    )


async def _content(blobs: BlobStore, key: str) -> bytes | None:
    """The report; None if it is gone."""
    try:
        return b"".join([chunk async for chunk in blobs.get(key)])
    except BlobNotFound:
        return None
    except BlobsUnavailable:
        raise MailFailed("the report cannot be read at present") from None


def _title(facts: Mapping[str, Any], delivery: DeliveryRow) -> str:
    named = _line(facts.get("jobTitle")) or _line(facts.get("workflowTitle")) or _line(delivery.client_job_id)
    return named if len(named) <= _MAX_TITLE else f"{named[: _MAX_TITLE - 1]}…"


def _rows(facts: Mapping[str, Any], found: _Material) -> list[tuple[str, str]]:
    """What is known of the job: names and values, each on one line."""
    who = _line(facts.get("userName"))
    if found.user is not None:
        who = f"{_line(found.user.name)} ({_line(found.user.email_address)})"
    is_completed = _line(facts.get("status")).casefold() == "completed"
    rows = [
        ("Workflow", _line(facts.get("workflowTitle"))),
        ("By", who),
        ("Started", _time(facts.get("created"), found.zone)),
        ("Completed" if is_completed else "Last change", _time(facts.get("updated"), found.zone)),
        ("Duration", _duration(facts.get("totalDuration"), facts.get("activeDuration"))),
    ]
    metadata = facts.get("metadata")
    for entry in metadata if isinstance(metadata, list) else ():
        if isinstance(entry, dict) and entry.get("name") not in _INTERNAL:
            rows.append((_line(entry.get("name")), _line(entry.get("value"))[:_MAX_VALUE]))
    return [(name, value) for name, value in rows if value]


def _time(text: Any, zone: str) -> str:
    moment = parse_time(text) if isinstance(text, str) else None
    if moment is None:
        return _line(text)
    try:
        return local(moment, zone)
    except ValueError:
        return _line(text)


def _duration(total: Any, active: Any) -> str:
    if not isinstance(total, int):
        return ""
    said = span(total * _SECOND)
    if isinstance(active, int) and (without := span(active * _SECOND)) != said:
        said += f" ({without} without pauses)"
    return said


def _place(facts: Mapping[str, Any]) -> str | None:
    """An address of a map."""
    latitude, longitude = facts.get("geoLatAverage"), facts.get("geoLongAverage")
    if not isinstance(latitude, int | float) or not isinstance(longitude, int | float):
        return None
    return f"https://www.openstreetmap.org/?mlat={latitude:.6f}&mlon={longitude:.6f}"


def _line(value: Any) -> str:
    """``value`` on one line: what people typed never begins a line of ours."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return " ".join(one_line(text).split())


def _size(report: ReportRow) -> str:
    megabytes = f"{(report.size or 0) / 1_000_000:.0f} MB"
    return f"PDF, {megabytes}, {report.pages} pages" if report.pages else f"PDF, {megabytes}"


def _text(notice: _Notice) -> str:
    lines = [notice.title, *filter(None, [notice.status]), ""]
    lines += [f"{name}: {value}" for name, value in notice.rows]
    if notice.place is not None:
        lines.append(f"Place: {notice.place}")
    for remark in notice.remarks:
        lines += ["", _line(remark)]
    if notice.link is not None:
        lines += ["", f"{notice.link[0]}:", notice.link[1]]
    lines += ["", "-- ", notice.reason]
    return "\n".join(lines) + "\n"


_BODY = "font-family:system-ui,-apple-system,'Segoe UI',sans-serif;color:#1d2733;line-height:1.45;margin:24px"
_NAME = "padding:2px 20px 2px 0;color:#5b6877;vertical-align:top;white-space:nowrap"
_FOOT = "color:#5b6877;font-size:13px;margin-top:28px"


def _html(notice: _Notice) -> str:
    rows = [(name, escape(value)) for name, value in notice.rows]
    if notice.place is not None:
        rows.append(("Place", f'<a href="{escape(notice.place)}">on the map</a>'))
    parts = [f'<h1 style="font-size:22px;margin:0">{escape(notice.title)}</h1>']
    if notice.status:
        parts.append(f'<p style="font-size:16px;margin:4px 0 20px">{escape(notice.status)}</p>')
    cells = [
        f'<tr><td style="{_NAME}">{escape(name)}</td><td style="padding:2px 0">{value}</td></tr>'
        for name, value in rows
    ]
    if cells:
        parts += ['<table style="border-collapse:collapse">', *cells, "</table>"]
    parts += [f"<p>{escape(_line(remark))}</p>" for remark in notice.remarks]
    if notice.link is not None:
        parts.append(f'<p><a href="{escape(notice.link[1])}">{escape(notice.link[0])}</a></p>')
    parts.append(f'<p style="{_FOOT}">{escape(notice.reason)}</p>')
    head = f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"></head><body style="{_BODY}">'
    return "\n".join([head, *parts, "</body></html>\n"])


def _remark(count: int, refused: Sequence[int], unfit: int) -> str | None:
    said = []
    if refused:
        answers = ", ".join(str(code) for code in sorted(set(refused)))
        said.append(f"the mail server refused {len(refused)} of {count} recipients: {answers}")
    if unfit:
        said.append(
            f"{unfit} of the trigger's recipients {'is' if unfit == 1 else 'are'} not an e-mail address"
        )
    return "; ".join(said) or None
