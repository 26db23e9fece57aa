"""The settings, the data folder and the limits of this machine."""

import difflib
import ipaddress
import os
import resource
import secrets
import shutil
import stat
from asyncio import to_thread
from dataclasses import fields
from pathlib import Path
from urllib.parse import urlsplit

from server.doctor.findings import Finding, Installation, account_name, failed, ok, skipped, warning
from server.settings import PREFIX, Settings

_GB = 1_000_000_000
#: A day of a busy site's photos.
_LITTLE_SPACE = 2 * _GB
_NO_SPACE = 100_000_000
_FEW_FILES = 1024
_SHARED_FILE_SYSTEMS = ("nfs", "cifs", "smb", "9p", "fuse.sshfs", "fuse.glusterfs", "ceph", "lustre")
LOOPBACK = ("127.0.0.1", "::1", "localhost")


async def check_settings(installation: Installation) -> Finding:
    """Which are set; never to what."""
    known = {PREFIX + item.name.upper() for item in fields(Settings)}
    given = sorted(name for name in os.environ if name.startswith(PREFIX))
    unknown = [name for name in given if name not in known]
    if unknown:
        similar = difflib.get_close_matches(unknown[0], known, 1)
        hint = f"Did you mean {similar[0]}? " if similar else ""
        return warning(
            f"not settings of this version: {', '.join(unknown)}",
            f"{hint}The README lists all settings. Correct the name or remove it.",
        )
    return ok(f"set: {', '.join(given)}" if given else "none is set; all have their defaults")


async def check_public_address(installation: Installation) -> Finding:
    """The address that stands in tokens, mails, webhooks and links."""
    settings = installation.settings
    if not settings.public_url:
        needing = [
            reason
            for reason, applies in (
                ("several processes must be one issuer of tokens", not installation.is_sqlite),
                ("mails hold links", bool(settings.smtp_url)),
                ("webhooks and reports hold links", installation.has_triggers),
                ("the sign-in page is at it", bool(settings.oidc_issuer or settings.redirect_uris)),
                ("clients come from other machines", settings.host not in LOOPBACK),
            )
            if applies
        ]
        if not needing:
            return ok(f"not set: {settings.base_url}, for this machine alone")
        return warning(
            f"not set, so it is {settings.base_url}, but {'; '.join(needing)}",
            "Set FIELDSYNC_PUBLIC_URL to the address that clients use, such as https://sync.example.com. Do it "
            "before the first clients sign in: changing it ends every access token in use.",
        )
    parts = urlsplit(settings.public_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return failed(
            "FIELDSYNC_PUBLIC_URL is not a web address",
            "It takes an address such as https://sync.example.com.",
        )
    if parts.scheme == "http" and parts.hostname not in LOOPBACK:
        return warning(
            f"{settings.base_url} is not https: passwords, tokens and photos travel in the clear",
            "Put a proxy with HTTPS in front (docs/deployment.md), or set FIELDSYNC_TLS_CERTIFICATE and "
            "FIELDSYNC_TLS_KEY; then set FIELDSYNC_PUBLIC_URL to the https:// address.",
        )
    return ok(settings.base_url)


async def check_data_folder(installation: Installation) -> Finding:
    """It is there, it can be written, and it is not full."""
    return await to_thread(_look_at_folder, installation)


def _look_at_folder(installation: Installation) -> Finding:
    folder = installation.settings.data
    shown = folder.absolute()
    if not folder.exists():
        making = (
            f"Set FIELDSYNC_DATA or --data to the right folder, or make it: sudo install -d -m 700 "
            f"-o fieldsync -g fieldsync {shown}"
        )
        if installation.is_sqlite:
            return failed(f"there is no {shown}", making)
        return warning(f"there is no {shown}; the server makes it if it may", making)
    if not folder.is_dir():
        return failed(f"{shown} is a file, not a folder", "Set FIELDSYNC_DATA or --data to a folder.")
    owner = installation.folder_owner
    if owner is not None and os.access(folder, os.W_OK | os.X_OK):
        return warning(
            f"{shown} belongs to another account ({account_name(owner)}) than this one "
            f"({account_name(os.geteuid())}): nothing is written there",
            f"Run the doctor as the service does, or it finds what the service will not: "
            f"sudo -u {account_name(owner)} with the same settings.",
        )
    probe = folder / f".doctor-{secrets.token_hex(8)}"
    try:
        probe.write_bytes(b"x" * 4096)
        probe.unlink()
    except OSError as error:
        return failed(
            f"{shown} cannot be written: {error.strerror}",
            f"Give it to the account of the service (sudo chown -R fieldsync: {shown}), make room, and in a "
            "systemd unit name it in ReadWritePaths=. Run the doctor as that account: sudo -u fieldsync.",
        )
    free = shutil.disk_usage(folder).free
    room = f"{shown}, {free / _GB:,.1f} GB free"
    more = "Make room or use a larger disk. What cannot be stored is answered with 503 until then."
    if free < _NO_SPACE:
        return failed(room, more)
    kind = _file_system(folder)
    if installation.is_sqlite and kind.startswith(_SHARED_FILE_SYSTEMS):
        return warning(
            f"{room}; it is on a network file system ({kind}), where SQLite's locks do not work",
            "Use a local disk, or PostgreSQL (FIELDSYNC_DATABASE_URL).",
        )
    return warning(room, more) if free < _LITTLE_SPACE else ok(room)


async def check_database_file(installation: Installation) -> Finding:
    """Nobody but the service reads it: it holds password hashes and the key that signs tokens."""
    if not installation.is_sqlite:
        return skipped("the database is not a file")
    return await to_thread(_look_at_file, sqlite_file(installation.settings))


def _look_at_file(path: Path) -> Finding:
    found = [Path(f"{path}{suffix}") for suffix in ("", "-wal", "-shm") if Path(f"{path}{suffix}").exists()]
    if not found:
        return skipped(f"there is no {path} yet")
    for file in found:
        about = file.stat()
        if stat.S_IMODE(about.st_mode) & 0o077:
            return warning(
                f"other accounts can read {file}: it holds password hashes and the key that signs tokens",
                f"chmod 600 {file}",
            )
        if about.st_uid != path.parent.stat().st_uid:
            return warning(
                f"{file} belongs to {account_name(about.st_uid)}, its folder to {account_name(path.parent.stat().st_uid)}",
                f"Give both to the account of the service: sudo chown -R fieldsync: {path.parent}",
            )
    return ok(f"{path}, for its owner ({account_name(path.stat().st_uid)}) alone")


async def check_open_files(installation: Installation) -> Finding:
    """Every connection, and every file that is read or written, takes one."""
    # `serve` and `worker` ask for what the hard limit allows.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY and most < _FEW_FILES:
        return warning(
            f"a process that is started here may open {most:,} files and connections at once",
            "Raise it: LimitNOFILE=65536 in the systemd unit, ulimits: nofile in a compose file, ulimit -n in a shell.",
        )
    shown = "any number of" if most == resource.RLIM_INFINITY else f"{most:,}"
    return ok(f"{shown} at once for a process that is started here")


async def check_webhooks(installation: Installation) -> Finding:
    """The ports and networks to which webhooks may go."""
    settings = installation.settings
    for network in settings.webhook_networks:
        parsed = ipaddress.ip_network(network)
        if parsed.prefixlen == 0 or parsed.is_loopback or parsed.is_link_local:
            return warning(
                f"FIELDSYNC_WEBHOOK_NETWORKS has {network}: whoever may make triggers can reach services of this machine"
                + (" and of every network around it" if parsed.prefixlen == 0 else ""),
                "List only the networks in which your receivers are.",
            )
    ports = ", ".join(settings.webhook_ports) or "none"
    networks = ", ".join(settings.webhook_networks)
    return ok(f"ports {ports}; public addresses{f' and {networks}' if networks else ' only'}")


def sqlite_file(settings: Settings) -> Path:
    """Where SQLite's database is."""
    return Path(settings.effective_database_url.partition("://")[2].partition("?")[0].removeprefix("/"))


def _file_system(folder: Path) -> str:
    """The kind of file system a folder is on, as Linux calls it; empty elsewhere."""
    try:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    real = folder.resolve()
    best, kind = -1, ""
    for line in lines:
        mount, _, more = line.partition(" - ")
        point = mount.split(" ")[4].replace("\\040", " ")
        if real.is_relative_to(point) and len(point) >= best:
            best, kind = len(point), more.split(" ")[0]
    return kind
