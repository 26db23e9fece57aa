"""All files of a job as one ZIP: every one of them, or visibly no archive."""

import asyncio
import hashlib
import io
import json
import shutil
import subprocess
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx
import pytest

from server.attachments.archive import archive
from storage.ids import new_id
from storage.queries.attachments import AttachmentRow
from tests.support.app import Document, Team, problem, snapshot, step
from tests.support.attachments import job_with, put_file, row_of, store_of
from tests.support.process import ServerProcess, init


def archive_of(team: Team, job: str) -> zipfile.ZipFile:
    response = team.get(f"/jobs/v1/{job}/attachments.zip")
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/zip"
    opened = zipfile.ZipFile(io.BytesIO(response.content))
    assert opened.testzip() is None
    return opened


def manifest_of(opened: zipfile.ZipFile) -> list[Document]:
    assert opened.namelist()[-1] == "manifest.json"
    return list(json.loads(opened.read("manifest.json"))["attachments"])


def test_an_archive_of_300_files_has_every_one_and_a_manifest_of_them(team: Team, tmp_path: Path) -> None:
    contents = {f"{number:03}-{new_id()}": bytes([number % 256]) * (number * 37) for number in range(300)}
    for name, content in contents.items():
        put_file(team, content, name, file_name="Bild ä.jpg" if int(name[:3]) % 2 else f"{name}.jpg")
    job = job_with(team, *contents, "zzz-awaited", jobTitle="Pump 7/8: Prüfung")
    opened = archive_of(team, job)
    manifest = manifest_of(opened)
    assert len(opened.namelist()) == 301 == len({name.lower() for name in opened.namelist()})
    assert [item["attachmentId"] for item in manifest] == [*contents, "zzz-awaited"]
    for item in manifest[:-1]:
        content = opened.read(item["name"])
        assert content == contents[item["attachmentId"]]
        assert item["size"] == len(content)
        assert item["sha256"] == hashlib.sha256(content).hexdigest()
        assert (item["contentType"], item["state"]) == ("image/jpeg", "stored")
    missing = manifest[-1]
    assert (missing["state"], missing["name"], missing["sha256"]) == ("missing", None, None)
    # A picture does not get smaller; nothing is compressed.
    assert {info.compress_type for info in opened.infolist()} == {zipfile.ZIP_STORED}
    if unzip := shutil.which("unzip"):
        path = tmp_path / "all.zip"
        path.write_bytes(team.get(f"/jobs/v1/{job}/attachments.zip").content)
        done = subprocess.run([unzip, "-tqq", str(path)], capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stdout) == (0, "")


def test_an_archive_is_named_after_its_job(team: Team) -> None:
    for title, expected in (
        ("Pump 7/8: Prüfung", "Pump 7-8_ Prüfung.zip"),
        ("../../etc/passwd", "-..-etc-passwd.zip"),
        ('a"\r\nX: y', "a_ X_ y.zip"),
        (None, None),
    ):
        job = job_with(team, put_file(team), jobTitle=title)
        headers = team.get(f"/jobs/v1/{job}/attachments.zip").headers
        said = headers["content-disposition"]
        assert said.startswith("attachment; filename*=UTF-8''")
        assert unquote(said.partition("''")[2]) == (expected or f"{job}.zip")
        assert headers["x-content-type-options"] == "nosniff"


def test_names_in_an_archive_are_no_paths_and_none_comes_twice(team: Team) -> None:
    wanted = [
        ("photo.jpg", "photo.jpg"),
        ("../../photo.jpg", "photo (2).jpg"),
        ("C:\\pictures\\PHOTO.JPG", "PHOTO (3).JPG"),
        ("photo (2).jpg", "photo (2) (2).jpg"),
        ("manifest.json", "manifest (2).json"),
        ("..", "05-id.jpg"),
        ("/", "06-id.jpg"),
        ("NUL.jpg", "_NUL.jpg"),
        ("con", "_con"),
        ('a<b>:"|?*.jpg', "a_b______.jpg"),
        ("tab\there\u202egpj.exe", "tab heregpj.exe"),
        (None, "11-id.jpg"),
        ("ü.jpg", "ü.jpg"),
        ("u\u0308.jpg", "ü (2).jpg"),
        ("日本.jpg", "日本.jpg"),
        (".hidden", "hidden"),
        ("x" * 300 + ".jpg", "x" * 196 + ".jpg"),
        ("ü" * 300, "ü" * 100),
    ]
    # The order in the archive is that of the ids.
    ids = [f"{place:02}-id" for place in range(len(wanted))]
    for attachment_id, (name, _) in zip(ids, wanted, strict=True):
        put_file(team, attachment_id=attachment_id, file_name=name)
    opened = archive_of(team, job_with(team, *ids))
    found = {item["attachmentId"]: item["name"] for item in manifest_of(opened)}
    assert [found[attachment_id] for attachment_id in ids] == [expected for _, expected in wanted]
    assert len({name.casefold() for name in opened.namelist()}) == len(wanted) + 1


def test_a_file_without_a_name_is_called_by_its_id_and_type(team: Team) -> None:
    kinds = {"application/pdf": "pdf", "video/mp4": "mp4", "application/octet-stream": "bin", "x/y": "bin"}
    ids = {put_file(team, file_name=None, content_type=kind): end for kind, end in kinds.items()}
    named = put_file(team, attachment_id=f"{new_id()}.JPG", file_name="")
    opened = archive_of(team, job_with(team, *ids, named))
    assert set(opened.namelist()) == {*(f"{name}.{end}" for name, end in ids.items()), named, "manifest.json"}


def test_an_archive_of_no_files_is_a_manifest(team: Team) -> None:
    assert manifest_of(archive_of(team, job_with(team))) == []
    (only,) = manifest_of(archive_of(team, job_with(team, "awaited")))
    assert (only["attachmentId"], only["state"]) == ("awaited", "missing")


def test_head_of_an_archive_makes_none(team: Team) -> None:
    job = job_with(team, put_file(team))
    response = team.request("HEAD", f"/jobs/v1/{job}/attachments.zip")
    assert (response.status_code, response.content) == (200, b"")
    assert response.headers["content-type"] == "application/zip"
    assert "content-disposition" in response.headers
    assert "content-length" not in response.headers


def test_an_archive_that_fails_before_it_begins_is_a_proper_refusal(team: Team) -> None:
    name = put_file(team)
    job = job_with(team, name)
    team.app.call(store_of(team).delete, [row_of(team, name).blob_key])
    problem(team.get(f"/jobs/v1/{job}/attachments.zip"), 503, "archive-interrupted")


@pytest.mark.parametrize("kind", ["gone", "cut"])
def test_an_archive_that_fails_half_way_breaks_off_and_is_none(
    tmp_path: Path, start_server: Callable[..., ServerProcess], kind: str
) -> None:
    data = tmp_path / "data"
    created = init(data)
    server = start_server(data)
    with server.connect(server.token(created)) as client:
        document = snapshot()
        document["completedSteps"] = [step("a", valueResourceIds=["1", "2"])]
        for name in ("1", "2"):
            sent = client.put(
                f"/attachments/v1/{name}",
                content=name.encode() * 3_000_000,
                headers={"Content-Type": "application/octet-stream"},
            )
            assert sent.status_code < 300, sent.text
        assert client.post("/jobs/v1/basicSync", json=document).status_code == 200
        path = f"/jobs/v1/{document['metadata']['clientJobId']}/attachments.zip"
        whole = client.get(path).content
        with zipfile.ZipFile(io.BytesIO(whole)) as opened:
            assert len(opened.namelist()) == 3
        (blob,) = [
            found
            for found in (data / "blobs").rglob("*")
            if found.is_file() and found.read_bytes()[:1] == b"2" and found.stat().st_size == 3_000_000
        ]
        if kind == "gone":
            blob.unlink()
        else:
            blob.write_bytes(b"2" * 1_000_000)
        received = b""

        def receive() -> None:
            nonlocal received
            with client.stream("GET", path) as response:
                assert response.status_code == 200
                for chunk in response.iter_raw():
                    received += chunk

        with pytest.raises(httpx.RemoteProtocolError):
            receive()
        assert len(received) > 2_000_000
        with pytest.raises(zipfile.BadZipFile):
            zipfile.ZipFile(io.BytesIO(received))
        # The server is as well as before.
        assert client.get("/readyz").status_code == 200


def test_an_archive_with_a_file_beyond_2_gb_is_a_zip64_made_at_constant_memory() -> None:
    size = 2_200_000_000
    chunk = bytes(256 * 1024)

    class Endless:
        async def get(self, _key: str) -> Any:
            left = size
            while left:
                yield chunk[: min(left, len(chunk))]
                left -= min(left, len(chunk))

    row = AttachmentRow(
        *("big", "stored", 1, 1, "1/big", size, bytes(32), "big.bin"),
        *(None, "application/octet-stream", None, None, None, None),
    )

    async def pages() -> Any:
        yield [row, row._replace(attachment_id="small", blob_key=None, state="missing")]

    async def run() -> tuple[int, bytes, bytes]:
        total, head, tail = 0, b"", b""
        async for part in archive(pages(), Endless()):  # type: ignore[arg-type]
            total += len(part)
            head = head or part[:64]
            tail = (tail + part)[-100_000:] if len(part) < 100_000 else part[-100_000:]
        return total, head, tail

    tracemalloc.start()
    try:
        total, head, tail = asyncio.run(run())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert total > size
    assert peak < 8_000_000
    # Version 4.5 is needed to extract it, and the directory has its zip64 records.
    assert head[4:6] == (45).to_bytes(2, "little")
    assert b"PK\x06\x06" in tail
    assert b"PK\x06\x07" in tail
