"""Permissions as flags: how sections 5.5, 13.4 and 13.9 send and print them."""

from collections.abc import Mapping
from typing import Any

from server import bodies

#: Permission -> its flag, in the order they are printed. SPOKE is for clients.
FLAGS: dict[str, str] = {
    "OWNER": "owner",
    "ADMIN": "admin",
    "EDITOR": "editor",
    "APPROVER": "approver",
    "MODIFIER": "modifier",
    "DATAVIEWER": "dataViewer",
    "EXECUTOR": "executor",
}

#: What a group may give. Owners are made one by one and by owners only; an administrator, who may fill
#: groups, must not become one that way.
GROUP_FLAGS: dict[str, str] = {
    permission: flag for permission, flag in FLAGS.items() if permission != "OWNER"
}


def parse_flags(body: Mapping[str, Any], flags: Mapping[str, str]) -> dict[str, bool]:
    """Permission -> whether it is to be held. Flags compare without case.

    The document's example is Python rather than JSON, and clients built from it send strings: "true" and
    "false" are taken for the booleans.

    Args:
        body: as it came.
        flags: those there are, as :data:`FLAGS`.

    Raises:
        Problem: 422 ``invalid-body`` with the flag that is not one of these, is neither true nor false, or
            came twice in different case.
    """
    known = {flag.lower(): permission for permission, flag in flags.items()}
    result: dict[str, bool] = {}
    for flag, value in body.items():
        permission = known.get(flag.lower())
        if permission is None:
            raise bodies.invalid(
                flag, f"There is no such permission here. There are: {', '.join(flags.values())}."
            )
        if permission in result:
            raise bodies.invalid(flag, f"{flag} came twice. Send each permission once.")
        if isinstance(value, str) and value.lower() in ("true", "false"):
            value = value.lower() == "true"
        if not isinstance(value, bool):
            raise bodies.invalid(flag, f"{flag} must be true or false.")
        result[permission] = value
    return result


def changed_permissions(permissions: frozenset[str], changes: Mapping[str, bool]) -> frozenset[str]:
    """``permissions`` after ``changes``; what is not among these stays."""
    return (permissions - changes.keys()) | {name for name, held in changes.items() if held}


def printed_flags(permissions: frozenset[str]) -> dict[str, bool]:
    """The flags that are true; the document prints no others."""
    return {flag: True for permission, flag in FLAGS.items() if permission in permissions}
