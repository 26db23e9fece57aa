"""Files in S3 or what speaks its protocol: MinIO, Ceph, Garage and others."""

import asyncio
import shutil
import tempfile
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from urllib3.exceptions import HTTPError

from storage.blobs.addresses import content_disposition
from storage.blobs.location import S3Location
from storage.blobs.store import (
    ADDRESS_SECONDS,
    CHUNK_BYTES,
    BlobInfo,
    BlobNotFound,
    BlobSizeDiffers,
    BlobStore,
    BlobsUnavailable,
    checked_key,
    checked_range,
)
from storage.blobs.threads import Threads

T = TypeVar("T")

_THREADS = 8
#: Of a file in several parts, each one. The smallest S3 takes is 5 MB; there may be 10,000.
_PART_BYTES = 8 * 1024 * 1024
_MAX_DELETED = 1000  # by one request
#: A store that does not answer must be told from a slow one before callers lose patience with us: with one
#: repetition, 5 s until a call is given up.
_CONNECT_SECONDS = 2
_READ_SECONDS = 2.4
_ATTEMPTS = 2
#: Putting parts together and storing a part on a slow disk take longer.
_PATIENT_READ_SECONDS = 20

_NO_SUCH_KEY = {"NoSuchKey", "404", "NotFound"}
#: Beyond the end of the file. Some stores refuse what Amazon's cuts off.
_BAD_RANGE = {"InvalidRange", "416", "InvalidArgument"}


class S3Blobs(BlobStore):
    """Files in a bucket. Credentials come from ``AWS_ACCESS_KEY_ID`` and ``AWS_SECRET_ACCESS_KEY``, or from
    wherever else Amazon's libraries look for them."""

    def __init__(self, location: S3Location) -> None:
        self._bucket = location.bucket
        self._prefix = f"{location.prefix}/" if location.prefix else ""
        self._threads = Threads(_THREADS, "s3")
        session = boto3.session.Session()
        self._client = _client(session, location, _READ_SECONDS)
        #: For requests that carry megabytes or make the store move them. Connections fail as fast.
        self._patient = _client(session, location, _PATIENT_READ_SECONDS)

    # Files

    async def put(
        self,
        key: str,
        source: bytes | AsyncIterator[bytes],
        *,
        content_type: str,
        size: int | None = None,
    ) -> int:
        name = self._name(key)
        if isinstance(source, bytes):
            _check_size(len(source), size)
            await self._put_object(name, source, content_type)
            return len(source)
        parts: _Parts | None = None
        pieces = bytearray()
        total = 0
        try:
            async for piece in source:
                # A source may come in pieces of any size.
                for start in range(0, len(piece), _PART_BYTES):
                    part = piece[start : start + _PART_BYTES]
                    total += len(part)
                    pieces += part
                    if len(pieces) >= _PART_BYTES:
                        if parts is None:
                            parts = await self._run(self._begin, name, content_type, discard=_Parts.abort)
                        await self._run(parts.upload, pieces)
                        pieces = bytearray()
            _check_size(total, size)
            if parts is None:
                await self._put_object(name, pieces, content_type)
                return total
            if pieces:
                await self._run(parts.upload, pieces)
            await self._run(parts.complete)
            return total
        except BaseException as error:
            if parts is not None:
                # A store that is away keeps nobody waiting twice.
                if isinstance(error, BlobsUnavailable | asyncio.CancelledError):
                    self._threads.start(parts.abort)
                else:
                    await self._threads.clean_up(parts.abort)
            raise

    async def get(self, key: str, start: int = 0, stop: int | None = None) -> AsyncGenerator[bytes, None]:
        checked_range(start, stop)
        body = await self._run(self._open, self._name(key), start, stop, discard=_close)
        if body is None:
            return
        try:
            while True:
                chunk: bytes = await self._run(body.read, CHUNK_BYTES)
                if not chunk:
                    break
                yield chunk
        finally:
            # In a thread: a read may be under way there.
            self._threads.start(body.close)

    async def info(self, key: str) -> BlobInfo | None:
        return await self._run(self._head, self._name(key))

    async def delete(self, keys: Sequence[str]) -> None:
        names = [self._name(key) for key in keys]
        for start in range(0, len(names), _MAX_DELETED):
            await self._run(self._delete, names[start : start + _MAX_DELETED])

    def local_path(self, key: str) -> AbstractAsyncContextManager[Path]:
        checked_key(key)

        @asynccontextmanager
        async def copy() -> AsyncIterator[Path]:
            folder = await self._run(_temporary_folder, discard=_remove_folder)
            try:
                path = folder / "file"
                file = await self._run(path.open, "wb", discard=_close)
                try:
                    async with aclosing(self.get(key)) as chunks:
                        async for chunk in chunks:
                            await self._run(file.write, chunk)
                finally:
                    await self._run(file.close)
                yield path
            finally:
                await self._threads.run(_remove_folder, folder)

        return copy()

    async def close(self) -> None:
        self._threads.close()
        self._client.close()
        self._patient.close()

    # Addresses

    def get_url(
        self,
        key: str,
        *,
        content_type: str,
        file_name: str,
        seconds: int = ADDRESS_SECONDS,
        inline: bool = False,
    ) -> str:
        return self._presigned(
            "get_object",
            seconds,
            Key=self._name(key),
            ResponseContentType=content_type,
            ResponseContentDisposition=content_disposition(file_name, inline),
            ResponseCacheControl="private",
        )

    def put_url(self, key: str, *, content_type: str, size: int, seconds: int = ADDRESS_SECONDS) -> str:
        return self._presigned(
            "put_object", seconds, Key=self._name(key), ContentType=content_type, ContentLength=size
        )

    def _presigned(self, operation: str, seconds: int, **parameters: Any) -> str:
        try:
            url: str = self._client.generate_presigned_url(
                operation, Params={"Bucket": self._bucket, **parameters}, ExpiresIn=seconds
            )
        except BotoCoreError as error:
            raise BlobsUnavailable(str(error)) from error
        return url

    # In threads

    async def _run(
        self, function: Callable[..., T], *arguments: Any, discard: Callable[[T], object] | None = None
    ) -> T:
        try:
            return await self._threads.run(function, *arguments, discard=discard)
        except (BotoCoreError, ClientError, HTTPError, OSError) as error:
            # Also a missing bucket and wrong credentials: an operator sets them right, and callers come again.
            raise BlobsUnavailable(str(error)) from error

    def _name(self, key: str) -> str:
        return self._prefix + checked_key(key)

    async def _put_object(self, name: str, content: bytes | bytearray, content_type: str) -> None:
        # Megabytes to write take a slow store longer than an answer without a body.
        client = self._client if len(content) < CHUNK_BYTES else self._patient

        def put() -> None:
            client.put_object(Bucket=self._bucket, Key=name, Body=content, ContentType=content_type)

        await self._run(put)

    def _begin(self, name: str, content_type: str) -> "_Parts":
        begun = self._client.create_multipart_upload(Bucket=self._bucket, Key=name, ContentType=content_type)
        upload = {"Bucket": self._bucket, "Key": name, "UploadId": begun["UploadId"]}
        return _Parts(self._client, self._patient, upload)

    def _open(self, name: str, start: int, stop: int | None) -> Any:
        """The body of a range; None if nothing of the file is in it."""
        wanted: dict[str, Any] = {"Bucket": self._bucket, "Key": name}
        if start or stop is not None:
            if stop is not None and stop == start:
                return self._open_within(name, start, stop)
            wanted["Range"] = _range(start, stop)
        try:
            return self._client.get_object(**wanted)["Body"]
        except ClientError as error:
            code = _code(error)
            if code in _NO_SUCH_KEY:
                raise BlobNotFound from error
            if "Range" in wanted and code in _BAD_RANGE:
                return self._open_within(name, start, stop)
            raise

    def _open_within(self, name: str, start: int, stop: int | None) -> Any:
        """As :meth:`_open`, with the range cut to the file's size."""
        info = self._head(name)
        if info is None:
            raise BlobNotFound
        stop = info.size if stop is None else min(stop, info.size)
        if start >= stop:
            return None
        return self._client.get_object(Bucket=self._bucket, Key=name, Range=_range(start, stop))["Body"]

    def _head(self, name: str) -> BlobInfo | None:
        try:
            found = self._client.head_object(Bucket=self._bucket, Key=name)
        except ClientError as error:
            if _code(error) in _NO_SUCH_KEY:
                return None
            raise
        return BlobInfo(found["ContentLength"], found["ETag"].strip('"'))

    def _delete(self, names: Sequence[str]) -> None:
        if len(names) == 1:
            self._client.delete_object(Bucket=self._bucket, Key=names[0])
            return
        objects = {"Objects": [{"Key": name} for name in names], "Quiet": True}
        answer = self._client.delete_objects(Bucket=self._bucket, Delete=objects)
        failed = [item for item in answer.get("Errors", ()) if item.get("Code") not in _NO_SUCH_KEY]
        if failed:
            raise BlobsUnavailable(
                f"{len(failed)} of {len(names)} files were not deleted: {failed[0].get('Code')}"
            )


class _Parts:
    """An upload in parts. Its methods are called in threads and wait for each other, so that one may be
    called while another one, whose caller was cancelled, still runs."""

    def __init__(self, client: Any, patient: Any, upload: dict[str, str]) -> None:
        self._client = client
        self._patient = patient
        self._upload = upload
        self._parts: list[dict[str, Any]] = []
        self._open = True
        self._lock = threading.Lock()

    def upload(self, content: bytearray) -> None:
        with self._lock:
            if self._open:
                number = len(self._parts) + 1
                done = self._patient.upload_part(**self._upload, PartNumber=number, Body=content)
                self._parts.append({"PartNumber": number, "ETag": done["ETag"]})

    def complete(self) -> None:
        with self._lock:
            if self._open:
                self._patient.complete_multipart_upload(
                    **self._upload, MultipartUpload={"Parts": self._parts}
                )
                self._open = False

    def abort(self) -> None:
        """Forget the parts, unless they were put together. What a store that is away does not hear of now,
        its own rule for incomplete uploads removes."""
        with self._lock:
            if self._open:
                self._open = False
                with suppress(BotoCoreError, ClientError, HTTPError, OSError):
                    self._client.abort_multipart_upload(**self._upload)


def _client(session: Any, location: S3Location, read_seconds: float) -> Any:
    own = location.endpoint is not None
    client = session.client(
        "s3",
        endpoint_url=location.endpoint,
        # Other stores take any region; Amazon's is found where the credentials are.
        region_name=location.region or session.region_name or ("us-east-1" if own else None),
        config=Config(
            signature_version="s3v4",
            # Buckets are no host names at most stores of one's own.
            s3={"addressing_style": "path" if own else "auto"},
            # Most other stores do not know the checksums that newer versions of the library send by itself.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            connect_timeout=_CONNECT_SECONDS,
            read_timeout=read_seconds,
            retries={"total_max_attempts": _ATTEMPTS, "mode": "standard"},
            max_pool_connections=4 * _THREADS,
        ),
    )
    # Without "Expect: 100-continue", for which each attempt would wait a second beyond its timeout.
    client.meta.events.register_last("before-call.s3", _expect_nothing)
    return client


def _expect_nothing(params: dict[str, Any], **_: Any) -> None:
    params["headers"].pop("Expect", None)


def _code(error: ClientError) -> str:
    code: str = error.response.get("Error", {}).get("Code", "")
    return code


def _range(start: int, stop: int | None) -> str:
    return f"bytes={start}-{'' if stop is None else stop - 1}"


def _check_size(actual: int, announced: int | None) -> None:
    if announced is not None and actual != announced:
        raise BlobSizeDiffers(f"{actual} bytes came, {announced} were announced")


def _temporary_folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="fieldsync-"))


def _remove_folder(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def _close(file: Any) -> None:
    if file is not None:
        file.close()
