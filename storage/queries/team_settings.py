"""Team settings: what a team has set, over the defaults of the specification (section 11.4)."""

from collections.abc import Mapping
from typing import Any

import msgspec
from sqlalchemy import Connection, select, update

from storage.tables import teams

#: The fifteen keys in the order of section 11.4. The page of the document shows a team that has changed one of
#: them (DisableJobRestart); its default, as of all booleans, is false.
DEFAULTS: Mapping[str, Any] = {
    "AutoDeviceSignOut": None,
    "AutoDownload": {"WorkflowUpdateMode": "Optional", "WorkflowUpdateLapsedTime": 0},
    "CheckDeviceTime": False,
    "DefaultTimezone": "Etc/UTC",
    "DisableJobRestart": False,
    "DisableOldTemplates": False,
    "EnableJobNaming": False,
    "GoBackReason": "Optional",
    "PermanentDataEdit": False,
    "RemoteExpertSolution": None,
    "Reports": {"DefaultReport": None},
    "RequiresAbandonReason": False,
    "StoreDBOnExternalStorage": False,
    "SupportsOnsight": False,
    "WorkflowApproverMode": 0,
}


def settings(connection: Connection, team_id: int, lock: bool = False) -> dict[str, Any]:
    """Every setting of a team; ``lock``: nobody else changes them until the transaction ends."""
    query = select(teams.c.settings).where(teams.c.team_id == team_id)
    stored = connection.execute(query.with_for_update() if lock else query).scalar_one_or_none()
    return merged(DEFAULTS, msgspec.json.decode(stored) if stored else {})


def set_settings(connection: Connection, team_id: int, values: Mapping[str, Any]) -> None:
    """Keep ``values``, which :func:`settings` with ``lock`` answered and the caller changed."""
    changed = {key: value for key, value in values.items() if value != DEFAULTS.get(key)}
    connection.execute(
        update(teams)
        .where(teams.c.team_id == team_id)
        .values(settings=msgspec.json.encode(changed) if changed else None)
    )


def approver_mode(connection: Connection, team_id: int) -> bool:
    """Whether a workflow's new version becomes active only once it is approved."""
    return bool(settings(connection, team_id)["WorkflowApproverMode"])


def default_timezone(connection: Connection, team_id: int) -> str:
    """The IANA name of the zone in which people of this team are told times."""
    return str(settings(connection, team_id)["DefaultTimezone"])


def default_report(values: Mapping[str, Any]) -> str | None:
    """Of all settings of a team: the id of its default report template. None: the built-in one."""
    template_id: str | None = values["Reports"]["DefaultReport"]
    return template_id


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """``below`` with the members of ``above``; objects in both are merged the same way."""
    result = dict(below)
    for key, value in above.items():
        known = result.get(key)
        result[key] = merged(known, value) if isinstance(known, dict) and isinstance(value, dict) else value
    return result
