"""Stock clients of tus against a real server on a real port: tuspy, tus-js-client, and a bare socket."""

import hashlib
import io
import random
import shutil
import socket
import sqlite3
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from tusclient.client import TusClient
from tusclient.exceptions import TusUploadFailed

from tests.support.app import Headers
from tests.support.process import ServerProcess, init
from tests.support.tus import TUS, TUS_CHUNK, tus_metadata

ADDRESS = "/attachments/v1/tus"
MB = 1024 * 1024
TUS_JS_CLIENT = "tus-js-client@4.3.1"


class Place:
    """A server with a team, which can be killed and started again on the same port."""

    def __init__(self, start: Callable[..., ServerProcess], data: Path) -> None:
        self.data = data
        self._start = start
        created = init(data)
        self.server = start(data)
        self.token = self.server.token(created)

    @property
    def url(self) -> str:
        return f"{self.server.url}{ADDRESS}"

    @property
    def headers(self) -> Headers:
        return {"Authorization": f"Bearer {self.token}"}

    def tuspy(self) -> TusClient:
        return TusClient(self.url, headers=self.headers)

    def kill_and_restart(self) -> None:
        port = self.server.port
        self.server.kill()
        self.server = self._start(self.data, port=port)

    def recorded(self, upload_id: str) -> int:
        """How many bytes of an upload are durable, looked up beside the server so as not to disturb it."""
        with sqlite3.connect(f"file:{self.data / 'fieldsync.db'}?mode=ro", uri=True) as connection:
            rows = connection.execute(
                "SELECT coalesce(sum(stop - start), 0) FROM upload_blocks WHERE upload_id = ?", [upload_id]
            )
            (total,) = rows.fetchone()
        connection.close()
        return int(total)

    def stored_sha256(self, attachment_id: str) -> str | None:
        """The hash of what is downloaded under an attachment's id; None while nothing is."""
        with self.server.connect(self.token) as http:
            response = http.get(f"/attachments/v1/{attachment_id}/content", follow_redirects=True)
            return None if response.status_code == 404 else hashlib.sha256(response.content).hexdigest()

    def begin(self, attachment_id: str, size: int) -> str:
        """The address of an upload that has begun."""
        headers = {
            **TUS,
            "Upload-Length": str(size),
            "Upload-Metadata": tus_metadata(attachmentId=attachment_id),
        }
        with self.server.connect(self.token) as http:
            response = http.post(ADDRESS, headers=headers)
        assert response.status_code == 201, response.text
        return str(response.headers["location"])

    def offset(self, address: str) -> int:
        with self.server.connect(self.token) as http:
            response = http.head(address, headers=TUS)
        assert response.status_code == 200, response.text
        return int(response.headers["upload-offset"])

    def half_a_patch(self, address: str, offset: int, length: int, chunk: bytes) -> socket.socket:
        """A connection that has announced ``length`` bytes and sent these."""
        lines = {
            "Host": f"127.0.0.1:{self.server.port}",
            **self.headers,
            **TUS,
            "Content-Type": TUS_CHUNK,
            "Upload-Offset": str(offset),
            "Content-Length": str(length),
        }
        head = f"PATCH {address} HTTP/1.1\r\n" + "".join(
            f"{name}: {value}\r\n" for name, value in lines.items()
        )
        line = socket.create_connection(("127.0.0.1", self.server.port), timeout=30)
        line.sendall(head.encode() + b"\r\n" + chunk)
        return line


@pytest.fixture
def place(
    start_server: Callable[..., ServerProcess], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Place:
    # The environment's proxies are not for a server on this machine.
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return Place(start_server, tmp_path / "data")


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_tuspy_is_interrupted_and_resumes_with_checksums(place: Place) -> None:
    data = random.Random(1).randbytes(5 * MB)
    metadata = {"attachmentId": "tuspy", "filename": "a.bin", "sha256": sha256(data)}
    options = {"chunk_size": 700_000, "upload_checksum": True}
    first = place.tuspy().uploader(file_stream=io.BytesIO(data), metadata=metadata, **options)
    first.upload(stop_at=2_100_000)
    assert place.stored_sha256("tuspy") is None
    # Another process of the app, which knows the address only.
    second = place.tuspy().uploader(file_stream=io.BytesIO(data), url=first.url, **options)
    assert second.offset == 2_100_000
    second.upload()
    assert second.offset == len(data)
    assert place.stored_sha256("tuspy") == sha256(data)


def test_tuspy_goes_on_where_a_connection_was_cut(place: Place) -> None:
    data = random.Random(2).randbytes(5 * MB)
    address = place.begin("cut", len(data))
    place.half_a_patch(address, 0, len(data), data[: 2 * MB + 77]).close()
    deadline = time.monotonic() + 10
    while place.recorded(address.rpartition("/")[2]) != 2 * MB + 77:
        assert time.monotonic() < deadline, "what came before the cut was not kept"
        time.sleep(0.02)
    uploader = place.tuspy().uploader(file_stream=io.BytesIO(data), url=f"{place.server.url}{address}")
    assert uploader.offset == 2 * MB + 77
    uploader.upload()
    assert place.stored_sha256("cut") == sha256(data)


def test_a_dead_connection_does_not_keep_the_device_waiting(place: Place) -> None:
    data = random.Random(3).randbytes(MB)
    address = place.begin("dead", len(data))
    with place.half_a_patch(address, 0, len(data), data[:400_000]):
        time.sleep(0.5)  # until the server has read what came; nothing tells it
        since = time.monotonic()
        assert place.offset(address) == 400_000
        assert time.monotonic() - since < 5
        uploader = place.tuspy().uploader(file_stream=io.BytesIO(data), url=f"{place.server.url}{address}")
        uploader.upload()
    assert place.stored_sha256("dead") == sha256(data)


def test_an_upload_survives_a_killed_server(place: Place) -> None:
    data = random.Random(4).randbytes(13 * MB)
    address = place.begin("killed", len(data))
    with place.half_a_patch(address, 0, len(data), data[: 9 * MB]):
        deadline = time.monotonic() + 20
        while place.recorded(address.rpartition("/")[2]) < 8 * MB:
            assert time.monotonic() < deadline, "pieces are not durable while the request lasts"
            time.sleep(0.02)
        place.kill_and_restart()
    assert place.offset(address) == 8 * MB
    uploader = place.tuspy().uploader(file_stream=io.BytesIO(data), url=f"{place.server.url}{address}")
    uploader.upload()
    assert place.stored_sha256("killed") == sha256(data)


def test_a_refusal_reaches_a_client_that_sends_much(place: Place) -> None:
    """A refusal is answered before the body was read; the client must get it, not a broken connection."""
    data = random.Random(5).randbytes(5 * MB)
    address = place.begin("refused", len(data))
    headers = {**place.headers, **TUS, "Content-Type": TUS_CHUNK, "Upload-Offset": "17"}
    with httpx.Client(base_url=place.server.url, trust_env=False, timeout=30) as http:
        for _ in range(5):
            assert http.patch(address, headers=headers, content=data).status_code == 409
    uploader = place.tuspy().uploader(file_stream=io.BytesIO(data), url=f"{place.server.url}{address}")
    uploader.offset = 17
    with pytest.raises(TusUploadFailed) as failed:
        uploader.upload_chunk()
    assert failed.value.status_code == 409


_SCRIPT = """
const tus = require("tus-js-client");
const fs = require("fs");
const [endpoint, token, path, id, sha256, extra] = process.argv.slice(2);
const data = fs.readFileSync(path);
const common = {
  endpoint, chunkSize: 600000, retryDelays: [0, 200],
  headers: { Authorization: `Bearer ${token}` },
  metadata: { attachmentId: id, filename: "ü.bin", filetype: "application/octet-stream", sha256 },
  onError: (error) => { console.error(String(error)); process.exit(1); },
  ...JSON.parse(extra),
};
let stopped = false;
const first = new tus.Upload(data, {
  ...common,
  onSuccess: () => { console.error("not interrupted"); process.exit(1); },
  onChunkComplete: (size, accepted) => {
    if (stopped || accepted < 1800000) return;
    stopped = true;
    first.abort().then(() => {
      let resumedAt = null;
      const second = new tus.Upload(data, {
        ...common,
        uploadUrl: first.url,
        onProgress: (sent) => { if (resumedAt === null) resumedAt = sent; },
        onSuccess: () => { console.log(JSON.stringify({ resumedAt, url: second.url })); },
      });
      second.start();
    });
  },
});
first.start();
"""


@pytest.fixture(scope="session")
def tus_js(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which tus-js-client is installed."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("node and npm are not here, so tus-js-client is not tried")
    folder = tmp_path_factory.mktemp("tus-js-client")
    (folder / "package.json").write_text("{}")
    try:
        done = subprocess.run(
            [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", TUS_JS_CLIENT],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=120,
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm did not install {TUS_JS_CLIENT} within two minutes")
    if done.returncode != 0:
        pytest.skip(f"npm could not install {TUS_JS_CLIENT}: {done.stderr.strip()[-300:]}")
    (folder / "upload.js").write_text(_SCRIPT)
    return folder


@pytest.mark.parametrize(
    "extra", ["{}", '{"uploadDataDuringCreation": true}', '{"overridePatchMethod": true}'], ids=str
)
def test_tus_js_client_is_interrupted_and_resumes(place: Place, tus_js: Path, extra: str) -> None:
    data = random.Random(extra).randbytes(5 * MB)
    file = tus_js / "file.bin"
    file.write_bytes(data)
    done = subprocess.run(
        ["node", "upload.js", place.url, place.token, str(file), "from-js", sha256(data), extra],
        cwd=tus_js,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert '"resumedAt":' in done.stdout
    assert place.stored_sha256("from-js") == sha256(data)
