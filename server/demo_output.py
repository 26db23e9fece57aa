"""What the demo prints when the day is over."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from fixtures.album import Album, content_path
from fixtures.analyst import PATH, QUERY, Answered
from fixtures.dispatch import Dispatch
from fixtures.fieldwork import Fieldwork, Member, fingerprint
from fixtures.jobs import Document
from fixtures.office import Office
from fixtures.verdict import Verdict

_FAILURES_SHOWN = 20
_ANSWER_SHOWN = 12
_TABLE_SHOWN = 3


class Credentials(msgspec.Struct, rename="camel"):
    """What ``fieldsync init`` prints once."""

    team: str
    owner: str
    password: str
    client_id: str
    client_secret: str


@dataclass(frozen=True)
class Day:
    """A day in the field and what became of it.

    Attributes:
        served: the jobs as the server shows them, in the form of ``comparable``.
        album: their files.
        office: what it has planned.
        dispatch: what was delivered.
        asked: a query for the jobs that were completed last.
    """

    fieldwork: Fieldwork
    served: dict[str, Document]
    album: Album
    office: Office
    dispatch: Dispatch
    verdict: Verdict
    asked: Answered


def print_result(console: Console, day: Day, sheet: Path | None, jobs_shown: int | None) -> None:
    """Print the files, the tablets, and the verdict.

    Args:
        sheet: where the contact sheet is, if there is one.
        jobs_shown: of how many jobs the addresses of the files are printed; None: of all.
    """
    _print_files(console, day, jobs_shown)
    console.print("\n[bold]After everybody has synced[/]\n")
    console.print(_table(day))
    fieldwork, verdict = day.fieldwork, day.verdict
    aborted = day.served.get(fieldwork.aborted.client_job_id)
    status = aborted["metadata"]["status"] if aborted else "missing"
    console.print(
        f"{len(fieldwork.steps)} steps were completed on the tablets and {len(fieldwork.held)} photos and "
        f"videos taken: {len(verdict.missing) or 'none'} missing.\n"
        f"The job that was aborted and completed at the same time is {status} everywhere.\n"
        + _sentence_of_files(day)
        + "\n"
        + _sentence_of_plans(day.office)
        + "\n"
        + _sentence_of_deliveries(day.dispatch)
    )
    if sheet is not None:
        console.print(f"Some of the thumbnails are on a contact sheet: {shown(sheet)}", soft_wrap=True)
    _print_webhook(console, day.dispatch)
    if not verdict.failures:
        console.print(
            "\n[bold green]ALL EQUAL[/]: every tablet holds exactly the server's jobs, "
            "and the server has every file."
        )
        return
    console.print("\n[bold red]NOT EQUAL[/]")
    for line in verdict.failures[:_FAILURES_SHOWN]:
        console.print(f"  {line}", soft_wrap=True, markup=False)
    if (more := len(verdict.failures) - _FAILURES_SHOWN) > 0:
        console.print(f"  and {more} more; the server's log may say why")


def print_query(console: Console, base_url: str, credentials: Credentials, asked: Answered) -> None:
    """Print a query as a command, what it answers as JSON and as a table, and where people write others."""
    answer = msgspec.json.format(asked.document, indent=2).decode().splitlines()
    lines = [
        f"curl -s -G {base_url}{PATH} -d key={asked.key} \\",
        *f"  --data-urlencode 'query={QUERY}'".splitlines(),
        "",
        *answer[:_ANSWER_SHOWN],
        *(["…"] if len(answer) > _ANSWER_SHOWN else []),
        "",
        "The same as a table, with -d csv=true at the end of the command:",
        "",
        *asked.table.splitlines()[:_TABLE_SHOWN],
        "",
        f"Others are written at {base_url}/query: sign in as {credentials.owner}, password {credentials.password}",
    ]
    console.print("\n[bold]A query[/] with a key of the team, and how the answer begins (indented here)\n")
    for line in lines:
        console.print(f"  {line}".rstrip(), soft_wrap=True, markup=False)


def print_access(
    console: Console, base_url: str, credentials: Credentials, day: Day, data: Path, log: Path
) -> None:
    """Print how to use the server that goes on running."""
    rows: dict[str, Any] = {
        "address": base_url,
        "team": credentials.team,
        "owner": credentials.owner,
        "password": credentials.password,
        "clientId": credentials.client_id,
        "clientSecret": credentials.client_secret,
        "data, log": f"{shown(data)}, {shown(log)}",
    }
    console.print("\n[bold]The server keeps running.[/]")
    for name, value in rows.items():
        console.print(f"  {name:<13} {value}", soft_wrap=True, markup=False)
    console.print("\n[bold]Try it[/] (a token lasts an hour):\n")
    for line in _curl_lines(base_url, credentials, day):
        console.print(line, soft_wrap=True, markup=False)
    console.print("\nCtrl-C stops the server.")


def shown(path: Path) -> str:
    """``path`` as the person would type it here."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _sentence_of_plans(office: Office) -> str:
    states = ", ".join(f"{count} {name}" for name, count in sorted(office.states.items()))
    return (
        f"The office had uploaded {len(office.workflows)} workflows and a list of {office.sites} sites, and "
        f"planned {len(office.planned)} of the jobs: {states}."
    )


def _sentence_of_deliveries(dispatch: Dispatch) -> str:
    receiver = dispatch.receiver
    return (
        f"A receiver was told of {len(receiver.received)} completed jobs, every signature verified; "
        f"{len(receiver.refused) or 'none'} of them it refused\nat first, and it came again. "
        f"{dispatch.mails} jobs of one workflow ({dispatch.mailed_workflow}) were mailed as a PDF."
    )


def _print_webhook(console: Console, dispatch: Dispatch) -> None:
    """One webhook as it came, and where a report lies."""
    if dispatch.report is not None:
        console.print(
            f"One of the reports: {shown(dispatch.report)}; the mails are in {shown(dispatch.report.parent / 'mail')}",
            soft_wrap=True,
        )
    first = next(iter(dispatch.receiver.received.values()), None)
    if first is None:
        return
    console.print("\n[bold]A webhook[/] as its receiver got it, the signature verified\n")
    console.print(f"  webhook-id: {first.webhook_id}", soft_wrap=True, markup=False)
    console.print(f"  webhook-signature: {first.signature}", soft_wrap=True, markup=False)
    job = {
        name: first.job.get(name) for name in ("jobTitle", "workflowTitle", "status", "updated", "userName")
    }
    said = {name: first.body.get(name) for name in ("id", "type", "timestamp")} | {"data": {"jobs": [job]}}
    body = msgspec.json.format(msgspec.json.encode(said), indent=2).decode()
    for line in body.splitlines():
        console.print(f"  {line}", soft_wrap=True, markup=False)
    console.print("  (some of its members; all of them are in docs/triggers.md)")


# Tablets.


def _table(day: Day) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=0, pad_edge=False)
    table.add_column("tablet", no_wrap=True)
    for name in (
        *("sent", "accepted", "merged", "re-\nplayed", "lost\nrequests", "lost\nreplies", "sent\ntwice"),
        *("jobs", "con-\nflicts", "files\nsent", "re-\nsumed"),
    ):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("content", no_wrap=True)
    table.add_column("against\nserver", no_wrap=True)
    for member in day.fieldwork.crew:
        table.add_row(*_tablet_row(member, day.verdict))
    table.add_section()
    conflicts = sum(len(document["sync"]["conflicts"] or []) for document in day.served.values())
    stored = sum(file["state"] != "missing" for _, file in _files(day))
    cells = (str(len(day.served)), str(conflicts), str(stored), "", fingerprint(day.served), "")
    table.add_row("server", *[""] * 7, *cells, style="bold")
    return table


def _tablet_row(member: Member, verdict: Verdict) -> list[str]:
    tablet, counts, network, outbox = (
        member.tablet,
        member.tablet.counts,
        member.network.counts,
        member.outbox,
    )
    accepted = sum(counts[action] for action in ("created", "merged", "unchanged", "recorded"))
    wrong = len(verdict.differences[tablet.name])
    return [
        tablet.name,
        *(str(number) for number in (counts["sent"], accepted, counts["merged"], counts["replayed"])),
        *(str(network[name]) for name in ("lost requests", "lost replies", "duplicates")),
        str(len(tablet.jobs)),
        str(sum(len(job.sync.get("conflicts") or []) for job in tablet.jobs.values())),
        *(str(len(ids)) for ids in (outbox.sent, outbox.resumed)),
        fingerprint({key: tablet.view(key) for key in tablet.jobs}),
        f"[red]{wrong} differ[/]" if wrong else "[green]equal[/]",
    ]


# Files.


def _files(day: Day) -> Iterator[tuple[str, Document]]:
    for client_job_id, files in day.album.files.items():
        for file in files:
            yield client_job_id, file


def _sentence_of_files(day: Day) -> str:
    files = [file for _, file in _files(day)]
    jobs = sum(map(bool, day.album.files.values()))
    head = f"{len(files)} photos and videos of {jobs} jobs"
    if not day.verdict.files:
        outboxes = [member.outbox for member in day.fieldwork.crew]
        in_blocks = sum(len(outbox.in_blocks) for outbox in outboxes)
        resumed = sum(len(outbox.resumed) for outbox in outboxes)
        return (
            f"{head}: all stored, all with three thumbnails.\n"
            f"{in_blocks} of them went in blocks; {resumed} of these were cut and resumed where they were."
        )
    stored = sum(file["state"] != "missing" for file in files)
    made = sum(len(file["thumbnails"]) == 3 for file in files)
    return f"{head}: {stored} stored, {made} with three thumbnails."


def _print_files(console: Console, day: Day, jobs_shown: int | None) -> None:
    jobs = [(client_job_id, files) for client_job_id, files in day.album.files.items() if files]
    console.print("\n[bold]Thumbnails[/] (GET with the token: redirects to the picture)\n")
    for client_job_id, files in jobs[:jobs_shown]:
        title = day.served[client_job_id]["metadata"]["jobTitle"] if client_job_id in day.served else ""
        console.print(f"  [bold]{title}[/] ({client_job_id})", soft_wrap=True)
        for file in files:
            held = day.fieldwork.held.get(file["attachmentId"])
            kind = held.sample.kind if held else ""
            line = f"GET {content_path(file['attachmentId'], 'small')}"
            console.print(f"    {line:<80} {kind}", soft_wrap=True, markup=False)
    if jobs_shown is not None and len(jobs) > jobs_shown:
        console.print(
            f"  and {len(jobs) - jobs_shown} more jobs: GET /jobs/v1/{{clientJobId}}/attachments lists "
            "each one's files."
        )
    signed = next(
        (file["thumbnails"][0]["downloadUrl"] for _, file in _files(day) if file["thumbnails"]), None
    )
    if signed is not None:
        console.print("\n  One address that works without a token, in a browser too, for 65 minutes:")
        console.print(f"  {signed}", soft_wrap=True, markup=False)


def _curl_lines(base_url: str, credentials: Credentials, day: Day) -> list[str]:
    read_token = "import json, sys; print(json.load(sys.stdin)['access_token'])"  # noqa: S105 - a program
    authorized = 'curl -s -H "Authorization: Bearer $TOKEN"'
    client_job_id = day.fieldwork.client_job_ids[0]
    lines = [
        f"TOKEN=$(curl -s {base_url}/connect/token -d grant_type=client_credentials \\",
        f"  -d client_id={credentials.client_id} \\",
        f"  -d client_secret={credentials.client_secret} \\",
        f'  | python3 -c "{read_token}")',
        "",
        f"{authorized} '{base_url}/jobs/v1/?skip=0&limit=20'",
        f"{authorized} {base_url}/jobs/v1/{client_job_id}",
        f"{authorized} {base_url}/jobs/v1/snapshots/{client_job_id}",
        f"{authorized} {base_url}/jobs/v1/{client_job_id}/attachments",
        f"{authorized} -o photos.zip {base_url}/jobs/v1/{client_job_id}/attachments.zip",
    ]
    if files := day.album.files[client_job_id]:
        path = f"/attachments/v1/{files[0]['attachmentId']}/content"
        name = files[0]["fileName"] or "photo"
        # -L: the answer redirects to where the file is.
        lines.append(f"{authorized} -L -o {name} {base_url}{path}")
        lines.append(f"{authorized} -L -o thumbnail.jpg '{base_url}{path}?size=small'")
    return lines
