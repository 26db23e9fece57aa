"""Stores of files to test against: a folder, and two S3 servers.

moto knows most of S3 but does not check signatures; nanio checks them, on plain files.
"""

import asyncio
import os
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import boto3
import pytest
from moto.server import ThreadedMotoServer

from storage.blobs import BlobStore, FolderBlobs, open_blobs
from tests.support.process import command, free_port, listening

T = TypeVar("T")

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing-secret"}
SECRET = b"s" * 32
MB = 1024 * 1024


@contextmanager
def s3_credentials() -> Iterator[None]:
    """Credentials where Amazon's library looks first, and no proxy between us and this machine."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in CREDENTIALS.items():
            patch.setenv(name, value)
        patch.setenv("NO_PROXY", "127.0.0.1,localhost")
        patch.setenv("no_proxy", "127.0.0.1,localhost")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        yield


@contextmanager
def moto_server() -> Iterator[str]:
    """The address of a moto server."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@contextmanager
def nanio_server(folder: Path, port: int | None = None) -> Iterator[str]:
    """The address of a nanio server, which keeps its objects in ``folder``."""
    port = port or free_port()
    folder.mkdir(parents=True, exist_ok=True)
    keys = {
        "NANIO_ACCESS_KEY": CREDENTIALS["AWS_ACCESS_KEY_ID"],
        "NANIO_SECRET_KEY": CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
    }
    with (folder.parent / "nanio.log").open("ab") as log:
        process = subprocess.Popen(
            [command("nanio"), "serve", f"--port={port}", "--host=127.0.0.1", f"--data-dir={folder}"],
            env={**os.environ, **keys},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + 30
        while not listening(port):
            assert process.poll() is None, "nanio did not start"
            assert time.monotonic() < deadline, "nanio does not answer"
            time.sleep(0.03)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait(timeout=10)


def s3_client(endpoint: str) -> Any:
    """Amazon's own client of a server."""
    return boto3.session.Session().client("s3", endpoint_url=endpoint, region_name="us-east-1")


class Store:
    """An open store and the loop it lives on. ``endpoint`` and ``bucket`` are those of an S3 server."""

    def __init__(
        self, runner: asyncio.Runner, blobs: BlobStore, kind: str, endpoint: str = "", bucket: str = ""
    ) -> None:
        self.runner = runner
        self.blobs = blobs
        self.kind = kind
        self.endpoint = endpoint
        self.bucket = bucket
        #: Amazon's own client, for looking behind our back.
        self.client: Any = s3_client(endpoint) if endpoint else None

    def run(self, awaitable: Awaitable[T]) -> T:
        async def main() -> T:
            return await awaitable

        return self.runner.run(main())

    def put(self, key: str, source: bytes | AsyncIterator[bytes], size: int | None = None) -> int:
        return self.run(self.blobs.put(key, source, content_type="image/jpeg", size=size))

    def get(self, key: str, start: int = 0, stop: int | None = None) -> bytes:
        async def read() -> bytes:
            return b"".join([chunk async for chunk in self.blobs.get(key, start, stop)])

        return self.run(read())

    def clear(self) -> None:
        """Remove every file, finished or not."""
        if isinstance(self.blobs, FolderBlobs):
            shutil.rmtree(self.blobs.folder)
            self.blobs.folder.mkdir()
            return
        objects = self.client.list_objects_v2(Bucket=self.bucket).get("Contents", [])
        for item in objects:
            self.client.delete_object(Bucket=self.bucket, Key=item["Key"])
        for upload in self.client.list_multipart_uploads(Bucket=self.bucket).get("Uploads", []):
            self.client.abort_multipart_upload(
                Bucket=self.bucket, Key=upload["Key"], UploadId=upload["UploadId"]
            )

    def left_over(self) -> list[str]:
        """Everything begun and neither finished nor forgotten."""
        if isinstance(self.blobs, FolderBlobs):
            return [path.name for path in self.blobs.folder.rglob(".*")]
        uploads = self.client.list_multipart_uploads(Bucket=self.bucket).get("Uploads", [])
        return [upload["Key"] for upload in uploads]


@contextmanager
def folder_store(folder: Path, base_url: str = "http://files.example") -> Iterator[Store]:
    """A store in a folder."""
    with asyncio.Runner() as runner:
        blobs = open_blobs("", folder, base_url, SECRET)
        yield Store(runner, blobs, "folder")
        runner.run(blobs.close())


@contextmanager
def s3_store(kind: str, endpoint: str, bucket: str) -> Iterator[Store]:
    """A store in a new bucket of an S3 server."""
    with asyncio.Runner() as runner:
        blobs = open_blobs(f"s3://{bucket}/some/prefix?endpoint={endpoint}", Path("unused"), "unused")
        store = Store(runner, blobs, kind, endpoint, bucket)
        store.client.create_bucket(Bucket=bucket)
        yield store
        runner.run(blobs.close())
        store.client.close()


async def pieces(content: bytes, length: int) -> AsyncIterator[bytes]:
    """``content`` in pieces of this length."""
    for start in range(0, len(content), length):
        yield content[start : start + length]


OpenStore = Callable[[str], Store]
