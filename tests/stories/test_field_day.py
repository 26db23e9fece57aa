"""The demo's day, with few jobs: everything that three tablets did and photographed is on the server."""

import io
from collections.abc import Callable
from pathlib import Path

from PIL import Image
from rich.console import Console

from fixtures.camera import samples
from server.demo import connections, work_a_day
from server.demo_output import print_result
from tests.support.process import ServerProcess, init


def test_all_tablets_are_equal_and_every_file_has_arrived_and_has_its_thumbnails(
    tmp_path: Path, start_server: Callable[..., ServerProcess]
) -> None:
    created = init(tmp_path / "data")
    server = start_server(tmp_path / "data")
    token = server.token(created)
    printed, sheet = io.StringIO(), tmp_path / "sheet.png"
    console = Console(file=printed, width=100)

    with connections(server.url, token) as connect:
        day = work_a_day(console, connect, sheet, jobs=4)
    assert day.verdict.failures == []
    assert day.album.total == len(day.fieldwork.held) > 3 * len(samples()) / 2
    assert all(member.outbox.sent and not member.outbox.owed for member in day.fieldwork.crew)
    assert {each.sample.kind for each in day.fieldwork.held.values()} == {each.kind for each in samples()}
    assert sum(day.office.states.values()) == len(day.office.planned) == 2
    assert day.office.sites == 7
    with Image.open(sheet) as image:
        assert image.width > 1000

    print_result(console, day, sheet, jobs_shown=1)
    text = printed.getvalue()
    assert f"{day.album.total} photos and videos of 4 jobs: all stored, all with three thumbnails." in text
    assert "planned 2 of the jobs" in text
    assert "ALL EQUAL" in text
    assert "and 3 more jobs" in text
