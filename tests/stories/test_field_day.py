"""The demo's day, with few jobs: everything that three tablets did and photographed is on the server, and whoever
wanted to know was told."""

import io
import json
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import msgspec
import pytest
from PIL import Image
from rich.console import Console

from fixtures.camera import samples
from fixtures.receiver import Receiver
from server.demo import connections, work_a_day
from server.demo_output import Credentials, print_query, print_result
from tests.support.process import ServerProcess, init


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as running:
        yield running


def test_all_tablets_are_equal_every_file_has_its_thumbnails_and_completed_jobs_are_told(
    tmp_path: Path, start_server: Callable[..., ServerProcess], receiver: Receiver
) -> None:
    data = tmp_path / "data"
    created = init(data)
    server = start_server(
        data,
        webhook_networks="127.0.0.0/8",
        webhook_ports=f"443,{receiver.port}",
    )
    token = server.token(created)
    printed = io.StringIO()
    console = Console(file=printed, width=100)

    with connections(server.url, token) as connect:
        day = work_a_day(console, connect, receiver, data, jobs=4)
    assert day.verdict.failures == []
    assert day.album.total == len(day.fieldwork.held) > 3 * len(samples()) / 2
    assert all(member.outbox.sent and not member.outbox.owed for member in day.fieldwork.crew)
    assert {each.sample.kind for each in day.fieldwork.held.values()} == {each.kind for each in samples()}
    assert sum(day.office.states.values()) == len(day.office.planned) == 2
    assert day.office.sites == 7
    sheet = data / "contact-sheet.png"
    with Image.open(sheet) as image:
        assert image.width > 1000
    assert receiver.forged == 0
    assert len(receiver.refused) == 1
    assert set(receiver.refused) <= set(receiver.received)  # it came again, under the same id
    over = {key for key, job in day.served.items() if job["metadata"]["status"] in ("Completed", "Abandoned")}
    assert over
    assert over <= {each.job["clientJobId"] for each in receiver.received.values()} <= set(day.served)
    assert day.dispatch.mails > 0
    assert day.dispatch.report is not None
    assert day.dispatch.report.read_bytes().startswith(b"%PDF-")

    print_result(console, day, sheet, jobs_shown=1)
    print_query(console, server.url, msgspec.convert(created, Credentials), day.asked)
    text = printed.getvalue()
    assert f"{day.album.total} photos and videos of 4 jobs: all stored, all with three thumbnails." in text
    assert "planned 2 of the jobs" in text
    assert "every signature verified" in text
    assert "ALL EQUAL" in text
    assert "and 3 more jobs" in text

    answered = json.loads(day.asked.document)["data"]["jobs"]
    assert answered
    assert {job["jobTitle"] for job in answered} <= {day.served[key]["metadata"]["jobTitle"] for key in over}
    assert asked_again(text) == day.asked.document
    for line in day.asked.table.splitlines()[:3]:
        assert f"  {line}\n" in text
    assert f"{server.url}/query: sign in as {created['owner']}, password {created['password']}\n" in text
    assert httpx.get(f"{server.url}/query", trust_env=False).status_code == 200


def asked_again(text: str) -> bytes:
    """What the printed command answers, read as a shell reads it."""
    command = text[text.index("curl ") :].split("\n\n")[0].replace("\\\n", " ")
    program, silent, as_get, url, *data = shlex.split(command)
    assert (program, silent, as_get, data[::2]) == ("curl", "-s", "-G", ["-d", "--data-urlencode"])
    return httpx.get(url, params=dict(each.split("=", 1) for each in data[1::2]), trust_env=False).content
