"""The store of files: stored, read, found at a signed address, removed."""

import re
import secrets
from urllib.parse import urlsplit

from server.doctor.asking import Answer, Unreachable, ask
from server.doctor.findings import RUN_AS_OWNER, Finding, Installation, failed, ok, skipped, warning
from server.doctor.machine import LOOPBACK
from storage.blobs import FolderBlobs, open_blobs
from storage.blobs.location import parse_location
from storage.queries import diagnosis

_TYPE = "application/octet-stream"
#: S3 refuses at 15 minutes.
_SKEW_SECONDS = 60

_SKEWED = (
    "The clock of this machine and the store's differ by more than S3 allows (15 minutes). Let both follow a time "
    "server: timedatectl set-ntp true, or chrony."
)
_RIGHTS = (
    "Give the credentials s3:GetObject, s3:PutObject, s3:DeleteObject, s3:AbortMultipartUpload and s3:ListBucket on "
    "the bucket."
)
#: What an error says -> what to do. The first that is found in it counts.
_ADVICE = [
    (r"RequestTimeTooSkewed|RequestExpired", _SKEWED),
    (
        r"SignatureDoesNotMatch",
        "AWS_SECRET_ACCESS_KEY is not the one of AWS_ACCESS_KEY_ID. Set both anew, without spaces around them.",
    ),
    (r"InvalidAccessKeyId", "The store does not know AWS_ACCESS_KEY_ID. Set the key it was made with."),
    (
        r"[Uu]nable to locate credentials|NoCredentials|[Pp]artial credentials",
        "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for the service.",
    ),
    (
        r"NoSuchBucket|bucket does not exist",
        "Make the bucket, private, or correct its name in FIELDSYNC_BLOBS.",
    ),
    (
        r"PermanentRedirect|AuthorizationHeaderMalformed|IllegalLocationConstraint",
        "Put the bucket's region into FIELDSYNC_BLOBS: s3://bucket?region=…",
    ),
    (r"AccessDenied|403|Forbidden", f"{_RIGHTS} Or the keys are not of this store."),
    (
        r"certificate|SSL",
        "Let this machine trust the store's certificate, or correct endpoint= in FIELDSYNC_BLOBS.",
    ),
    (
        r"[Cc]ould not connect|[Cc]onnect|[Tt]imed? ?out|closed",
        "Start the store; then look at endpoint= in FIELDSYNC_BLOBS, at name resolution and the firewall between.",
    ),
    (r"No space|quota|Quota|full", "Make room. Uploads wait until then; jobs go on syncing."),
    (
        r"denied|not permitted|[Rr]ead-only|Not a directory|File exists|No such file",
        "Give the folder blobs of the data folder to the account of the service, as a folder: "
        "sudo chown -R fieldsync: FOLDER",
    ),
]


async def check_files(installation: Installation) -> Finding:
    """A small file is stored, read back and removed."""
    settings = installation.settings
    folder = settings.data / "blobs"
    place = f"the folder {folder.absolute()}"
    if settings.blobs:
        location = parse_location(settings.blobs)
        place = f"the bucket {location.bucket} at {location.endpoint or 'Amazon'}"
    elif not settings.data.is_dir():
        return skipped(f"there is no {settings.data.absolute()}")
    elif installation.folder_owner is not None:
        return skipped(f"{place} is not ours", RUN_AS_OWNER)
    elif not folder.exists():
        return skipped(
            f"there is no {folder.absolute()} yet", "Start the server, which makes it, and run this again."
        )
    try:
        blobs = open_blobs(settings.blobs, folder, settings.base_url)
    except Exception as error:  # Amazon's library has errors of its own for settings it cannot use
        return failed(f"{place} cannot be used: {installation.quote(error)}", _advice(str(error)))
    key, content = _sample()
    doing = "stored"
    try:
        await blobs.put(key, content, content_type=_TYPE, size=len(content))
        doing = "read back"
        read = b"".join([chunk async for chunk in blobs.get(key)])
        doing = "removed"
        await blobs.delete([key])
    except BaseException as error:
        await blobs.close()
        if not isinstance(error, Exception):
            raise
        return failed(
            f"a file cannot be {doing} in {place}: {installation.quote(error)}",
            _advice(f"{error} {error.__cause__}"),
        )
    installation.blobs = blobs
    if read != content:
        return failed(
            f"{place} gave back something else than it was given",
            "Look for a proxy or cache between, and at the disk.",
        )
    return ok(f"stored, read and removed in {place}")


async def check_addresses(installation: Installation) -> Finding:
    """A signed address works for whoever has it, as for a tablet."""
    blobs = installation.blobs
    if blobs is None:
        return skipped("no file was stored")
    if isinstance(blobs, FolderBlobs):
        if installation.database is None or not installation.schema_is_current:
            return skipped("what signs them is in the database, which cannot be used")
        secret = await installation.database.read(diagnosis.secret, "files")
        if not secret:
            return skipped("no server has made what signs them yet; it does at its first start")
        blobs.sign_with(secret)
    key, content = _sample()
    await blobs.put(key, content, content_type=_TYPE, size=len(content))
    try:
        url = blobs.get_url(key, content_type=_TYPE, file_name="doctor.bin", seconds=60)
        if isinstance(blobs, FolderBlobs):
            return await _through_us(installation, blobs, url, content)
        return await _through_s3(installation, url, content)
    finally:
        await blobs.delete([key])


async def _through_us(installation: Installation, blobs: FolderBlobs, url: str, content: bytes) -> Finding:
    base = installation.settings.base_url
    address = blobs.address(url.rpartition("/")[2])
    if b"".join([chunk async for chunk in blobs.get(address.key)]) != content:
        return failed(
            "a signed address leads to another file", "This is a defect of Fieldsync: please report it."
        )
    try:
        answer = await ask(url)
    except Unreachable as error:
        return ok(f"signed and read here; not asked at {base}: {error}")
    if answer.status == 200 and answer.content == content:
        return ok(f"signed here, read at {base}")
    if answer.status == 403 and b"address-invalid" in answer.content:
        return failed(
            f"{base} does not know what this installation signs",
            "The server there uses another database. Give it the same FIELDSYNC_DATA or FIELDSYNC_DATABASE_URL, or "
            "correct FIELDSYNC_PUBLIC_URL.",
        )
    if answer.status == 404 and b"file-not-found" in answer.content:
        return failed(
            f"{base} does not find a file that was stored here",
            "The server there has another data folder. Several machines need one store of files: S3 (FIELDSYNC_BLOBS).",
        )
    return failed(
        f"{base} answers {answer.status} for the address of a file",
        "Let the proxy pass /files/v1/ to the server unchanged.",
    )


async def _through_s3(installation: Installation, url: str, content: bytes) -> Finding:
    parts = urlsplit(url)
    place = f"{parts.scheme}://{parts.netloc}"
    try:
        answer = await ask(url)
    except Unreachable as error:
        return failed(
            f"{place} does not answer as clients ask it: {error}",
            "Clients read files there themselves: give endpoint= in FIELDSYNC_BLOBS the name and the certificate under "
            "which they reach the store.",
        )
    if answer.status != 200 or answer.content != content:
        code = _code(answer)
        return failed(
            f"{place} refuses a signed address: {answer.status} {code}".rstrip(),
            _advice(f"{code} {answer.status}"),
        )
    skew = installation.clock() - answer.date if answer.date is not None else 0.0
    if abs(skew) > _SKEW_SECONDS:
        return warning(
            f"the clock of this machine is {abs(skew):,.0f} s {'ahead of' if skew > 0 else 'behind'} the store's",
            "S3 refuses requests at 15 minutes. Let both follow a time server: timedatectl set-ntp true, or chrony.",
        )
    public = urlsplit(installation.settings.base_url)
    if parts.hostname in LOOPBACK and public.hostname not in LOOPBACK:
        return warning(
            f"read at {place}, which only this machine reaches",
            "Clients read files there themselves: give endpoint= in FIELDSYNC_BLOBS a name that they reach.",
        )
    if parts.scheme == "http" and parts.hostname not in LOOPBACK:
        return warning(
            f"read at {place}: files travel in the clear",
            "Give the store HTTPS and use an https:// endpoint=.",
        )
    return ok(f"signed here, read at {place}")


def _sample() -> tuple[str, bytes]:
    return f"doctor-{secrets.token_hex(8)}", secrets.token_bytes(64)


def _code(answer: Answer) -> str:
    found = re.search(rb"<Code>(\w{1,60})</Code>", answer.content)
    return found[1].decode() if found else ""


def _advice(text: str) -> str:
    for pattern, advice in _ADVICE:
        if re.search(pattern, text):
            return advice
    return "See the log of the store for the reason."
