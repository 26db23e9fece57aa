"""The simulated tablets hold files of every kind, and send all that the server misses over any network."""

import hashlib
import io
import random
from collections.abc import Mapping
from typing import Any

import av
import msgspec
import pytest
from PIL import Image

from fixtures.album import Album
from fixtures.camera import Camera, Held, Sample, resource_ids, samples
from fixtures.jobs import inspection_jobs, specification_snapshot
from fixtures.network import FaultyTransport, Lost, Reply, Transport
from fixtures.outbox import Outbox, missing_blocks
from fixtures.tablet import Tablet

JOB = specification_snapshot()["metadata"]["clientJobId"]


def sample(size: int, extension: str = "png") -> Sample:
    content = random.Random(size).randbytes(size)
    return Sample(f"{size} bytes", extension, "image/png", content, hashlib.sha256(content).hexdigest())


SMALL, LARGE = sample(1_000), sample(450_000)


class Office:
    """A server that takes files as ours does; ``says`` holds replies to give instead, first come first served."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.sessions: dict[str, tuple[dict[str, Any], dict[int, bytes]]] = {}
        self.requests: list[tuple[str, str, Mapping[str, str]]] = []
        self.says: list[Reply] = []

    def send(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        self.requests.append((method, path, headers))
        if self.says:
            return self.says.pop(0)
        last = path.rpartition("/")[2]
        if method == "PUT":
            assert hashlib.sha256(body).hexdigest() == headers["X-Content-SHA256"]
            return self.keep(last, body)
        if path == "/attachments/v1/upload":
            asked = msgspec.json.decode(body)
            for upload_id, (known, _) in self.sessions.items():
                if known["attachmentId"] == asked["attachmentId"]:
                    return self.session(upload_id)
            self.sessions[f"u{len(self.sessions)}"] = (asked, {})
            return self.session(f"u{len(self.sessions) - 1}")
        if last not in self.sessions:
            return problem(404, "upload-not-found")
        if method == "POST":
            asked, blocks = self.sessions[last]
            start, stop = (int(part) for part in headers["Content-Range"][6:].partition("/")[0].split("-"))
            assert stop + 1 - start == len(body) <= asked["blockSize"]
            blocks[start] = body
            if sum(map(len, blocks.values())) < asked["fileSize"]:
                return 202, {}, b""
            self.keep(asked["attachmentId"], b"".join(blocks[start] for start in sorted(blocks)))
            return 204, {}, b""
        return self.session(last)

    def keep(self, attachment_id: str, content: bytes) -> Reply:
        known = self.files.setdefault(attachment_id, content)
        return (201, {}, b"{}") if known == content else problem(409, "content-differs")

    def session(self, upload_id: str) -> Reply:
        asked, blocks = self.sessions[upload_id]
        received = [{"start": start, "end": start + len(block) - 1} for start, block in blocks.items()]
        complete = sum(map(len, blocks.values())) == asked["fileSize"]
        answer = {
            "id": upload_id,
            "blockSize": asked["blockSize"],
            "received": received,
            "complete": complete,
        }
        return 200, {}, msgspec.json.encode(answer)


def problem(status: int, code: str, retry: str = "never", **headers: str) -> Reply:
    return status, headers, msgspec.json.encode({"code": code, "retry": retry})


def outbox_of(transport: Transport, *files: Sample, waits: list[float] | None = None) -> Outbox:
    """A tablet that holds ``files`` as f0, f1, … and has been told that the server misses them."""
    tablet = Tablet("A", transport, random=random.Random(1))
    tablet.start_job(specification_snapshot())
    camera = Camera(files)
    for number in range(len(files)):
        camera.take(f"f{number}")
    tablet.jobs[JOB].owed = [*camera.held, "another tablet's"]
    # The seed is one with which small files go in one request.
    return Outbox(tablet, camera, random.Random(2), (waits if waits is not None else []).append)


def test_there_is_a_sample_of_every_kind_that_phones_make() -> None:
    made = samples()
    assert {
        "image/jpeg",
        "image/heic",
        "image/png",
        "image/tiff",
        "image/webp",
        "image/avif",
        "video/mp4",
    } <= {each.content_type for each in made}
    assert len({each.sha256 for each in made}) == len(made)
    assert sum(len(each.content) for each in made) < 6_000_000
    orientations, places = set(), set()
    for each in made:
        if each.content_type == "image/jpeg":
            tags = Image.open(io.BytesIO(each.content)).getexif()
            orientations.add(tags.get(0x0112))
            places.add(bool(tags.get_ifd(0x8825)))
    assert orientations >= set(range(1, 9))
    assert True in places
    [video] = [each for each in made if each.content_type == "video/mp4"]
    with av.open(io.BytesIO(video.content)) as opened:
        assert opened.duration == 3 * av.time_base


def test_a_camera_takes_the_samples_in_turn_and_a_jpeg_where_the_name_says_so() -> None:
    camera = Camera([sample(1), sample(2, "jpg"), sample(3)], first=1)
    for resource_id in ("a", "b", "note.jpg", "c", "a"):
        camera.take(resource_id)
    assert [held.sample.kind for held in camera.held.values()] == ["2 bytes", "3 bytes", "2 bytes", "1 bytes"]
    assert camera.held["note.jpg"].file_name == "note.jpg"
    assert camera.held["b"].file_name == "IMG_0002.png"


def test_a_step_is_photographed_with_everything_inside_it() -> None:
    step = {"reportStep": {"valueResourceIds": ["a"], "steps": [{"singleStep": {"valueResourceIds": ["b"]}}]}}
    step["reportStep"]["noteResourceFilenames"] = ["c.jpg"]
    assert sorted(resource_ids(step)) == ["a", "b", "c.jpg"]
    assert len(list(resource_ids(inspection_jobs(4)))) > 10
    without_samples = Camera([])
    without_samples.take_for(step)
    assert without_samples.held == {}


def test_what_is_owed_is_sent_and_nothing_else() -> None:
    office = Office()
    outbox = outbox_of(office, SMALL, LARGE)
    assert outbox.owed == ["f0", "f1"]
    assert outbox.send_owed()
    assert office.files == {"f0": SMALL.content, "f1": LARGE.content}
    assert (outbox.owed, outbox.sent, outbox.in_blocks, outbox.resumed) == ([], {"f0", "f1"}, {"f1"}, set())
    before = len(office.requests)
    assert outbox.send_owed()
    assert len(office.requests) == before


@pytest.mark.parametrize("seed", range(5))
def test_a_network_that_loses_and_repeats_does_not_keep_a_file_back(seed: int) -> None:
    office = Office()
    network = FaultyTransport(office, random.Random(seed), lose_request=0.2, lose_reply=0.2, duplicate=0.2)
    files = (SMALL, LARGE, sample(500_000), sample(600_000), sample(2_000))
    outbox = outbox_of(network, *files)
    for _ in range(20):
        if outbox.send_owed(attempts=3):
            break
    assert outbox.owed == []
    assert [office.files[f"f{number}"] for number in range(5)] == [each.content for each in files]
    assert outbox.in_blocks == {"f1", "f2", "f3"}
    assert outbox.resumed, "uploads were cut and went on"
    assert network.counts["lost replies"] > 0


def test_blocks_go_in_any_order_and_after_a_cut_only_those_that_are_missing() -> None:
    class Cut(Office):
        def send(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
            reply = super().send(method, path, headers, body)
            if len(self.requests) == 4:
                raise Lost("the reply got lost")
            return reply

    office = Cut()
    outbox = outbox_of(office, LARGE)
    assert outbox.send_owed()
    assert outbox.resumed == {"f0"}
    ranges = [headers["Content-Range"] for _, _, headers in office.requests if "Content-Range" in headers]
    starts = [int(each[6:].partition("-")[0]) for each in ranges]
    assert len(starts) == len(set(starts)) == 5
    assert starts != sorted(starts)
    methods = [method for method, path, _ in office.requests if path.rpartition("/")[2].startswith("u")]
    assert methods.index("GET") == 4, "the session is asked what it has"


def test_a_session_that_is_over_is_begun_again() -> None:
    office = Office()
    outbox = outbox_of(office, LARGE)
    office.says = [office_reply(), problem(410, "upload-expired")]
    assert outbox.send_owed()
    assert office.files == {"f0": LARGE.content}


def office_reply() -> Reply:
    answer = {"id": "gone", "blockSize": 65_536, "received": [], "complete": False}
    return 200, {}, msgspec.json.encode(answer)


def test_a_refused_file_is_not_sent_again_and_the_others_are() -> None:
    office = Office()
    outbox = outbox_of(office, SMALL, sample(1_500))
    office.says = [problem(409, "content-differs")]
    assert outbox.send_owed()
    assert outbox.refused == {"f0": "409 content-differs"}
    assert office.files.keys() == {"f1"}
    assert outbox.owed == []


def test_later_is_waited_for_and_ends() -> None:
    office, waits = Office(), list[float]()
    outbox = outbox_of(office, SMALL, waits=waits)
    office.says = [problem(503, "blobs-unavailable", "later", **{"retry-after": "7"}), (502, {}, b"<html>")]
    assert outbox.send_owed()
    assert waits == [7.0, 1.0]
    office, waits = Office(), list[float]()
    office.says = [problem(503, "blobs-unavailable", "later")] * 50
    assert not outbox_of(office, SMALL, waits=waits).send_owed(attempts=4)
    assert len(waits) == 4


@pytest.mark.parametrize(
    ("received", "left"),
    [
        ([], [(0, 4), (4, 8), (8, 10)]),
        ([{"start": 4, "end": 7}], [(0, 4), (8, 10)]),
        ([{"start": 8, "end": 9}, {"start": 0, "end": 2}], [(3, 7), (7, 8)]),
        ([{"start": 0, "end": 9}], []),
    ],
)
def test_missing_blocks_are_what_lies_between_the_ranges_received(
    received: list[dict[str, int]], left: list[tuple[int, int]]
) -> None:
    assert missing_blocks(received, 10, 4) == left


def shown(attachment_id: str, held: Sample, **other: Any) -> dict[str, Any]:
    thumbnails = [{"size": size} for size in ("small", "medium", "large")]
    file = {"attachmentId": attachment_id, "state": "ready", "failure": None, "thumbnails": thumbnails}
    return {**file, "size": len(held.content), "sha256": held.sha256, **other}


def test_an_album_names_every_file_that_is_not_as_it_was_taken() -> None:
    class Shelf:
        def send(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
            if "/attachments" in path:
                return 200, {}, msgspec.json.encode(files)
            return 200, {}, msgspec.json.encode({"sync": {"attachmentsComplete": complete}})

    files, complete = [shown("good", SMALL), shown("late", SMALL, state="missing")], False
    held = {key: Held(SMALL, f"{key}.png") for key in ("good", "late")}
    album = Album(Shelf(), ["j"])
    album.refresh()
    assert (album.over, album.total, album.finished) == (1, 2, False)
    assert album.faults(held) == [
        "file late (1000 bytes): missing",
        "job j: attachmentsComplete is not true",
    ]
    files, complete = [shown("good", SMALL), shown("late", SMALL)], True
    album.refresh()
    assert album.finished
    assert album.faults(held) == []
    files = [
        shown("a", SMALL, sha256="0" * 64),
        shown("b", SMALL, state="failed", failure="not a picture"),
        shown("c", SMALL, thumbnails=[{"size": "small"}]),
        shown("d", SMALL),
    ]
    album = Album(Shelf(), ["j"])
    album.refresh()
    assert album.faults({key: Held(SMALL, "") for key in "abce"}) == [
        "file a (1000 bytes): what is stored is not what was sent",
        "file b (1000 bytes): failed – not a picture",
        "file c (1000 bytes): has the thumbnails ['small']",
        "file d: no tablet holds it",
        "file e: not referred to by any job",
    ]
