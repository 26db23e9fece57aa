"""Team settings: chapter 11 of the primary specification.

Each setting has a type and a meaning here. Many are for the devices, which read them; what the server itself
does about one stands in its meaning.
"""

import zoneinfo
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NamedTuple

import msgspec
from litestar import Request, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath

from server import bodies
from server.auth.principal import Principal
from server.errors import Problem
from server.http import json_response
from storage.database import Connection, Database
from storage.queries import team_settings as queries
from storage.queries.report_templates import is_live

_TAGS = ["Team settings"]
_READ = {"policy": "TeamSettings_Read"}
_ADMIN = {"policy": "TeamSettings_Admin"}
_MAX_TEXT = 200
_MAX_MINUTES = 1_000_000

SettingsRequest = Request[Principal, Any, Any]


class Setting(NamedTuple):
    """One setting.

    Attributes:
        takes: what a value must be, for people.
        value: the value if it is one, as it is kept; raises ValueError otherwise.
        meaning: what it does.
    """

    takes: str
    value: Callable[[Any], Any]
    meaning: str


def _boolean(value: Any) -> bool:
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if not isinstance(value, bool):
        raise ValueError
    return value


def _whole_number(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MAX_MINUTES:
        raise ValueError
    return value


def _or_null(check: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else check(value)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_TEXT or not value.isprintable():
        raise ValueError
    return value


def _one_of(*names: str) -> Callable[[Any], str]:
    known = {name.lower(): name for name in names}

    def check(value: Any) -> str:
        if not isinstance(value, str) or value.lower() not in known:
            raise ValueError
        return known[value.lower()]

    return check


def _timezone(value: Any) -> str:
    if not isinstance(value, str) or value not in _timezones():
        raise ValueError
    return value


@cache
def _timezones() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones())


def _mode(value: Any) -> int:
    if isinstance(value, bool) or value not in (0, 1):
        raise ValueError
    return int(value)


_BOOLEAN = ("true or false", _boolean)
_MODES = ("Optional", "Required", "Disabled")

#: Setting -> what it is; a setting inside another as `outer.inner`. The order is the document's.
SETTINGS: Mapping[str, Setting] = {
    "AutoDeviceSignOut": Setting(
        "null or a number of minutes",
        _or_null(_whole_number),
        "Devices sign their user out after so many minutes without use.",
    ),
    "AutoDownload.WorkflowUpdateMode": Setting(
        "Optional, Required or Disabled",
        _one_of(*_MODES),
        "Whether devices fetch new versions of workflows by themselves.",
    ),
    "AutoDownload.WorkflowUpdateLapsedTime": Setting(
        "a number of minutes", _whole_number, "How long devices put off a required update."
    ),
    "CheckDeviceTime": Setting(
        *_BOOLEAN,
        "A sync from a device whose clock is more than 2 minutes off is answered with the warning "
        "`device-clock`; it is applied all the same.",
    ),
    "DefaultTimezone": Setting(
        "a name of the IANA time zone database, such as Europe/Berlin",
        _timezone,
        "The zone of the times in mails and reports.",
    ),
    "DisableJobRestart": Setting(
        *_BOOLEAN,
        "Devices do not restart jobs; the server refuses to reopen them (409 `restart-disabled`).",
    ),
    "DisableOldTemplates": Setting(*_BOOLEAN, "Devices offer only the active version of a workflow."),
    "EnableJobNaming": Setting(
        *_BOOLEAN,
        "Devices ask for a name of each job; one that arrives without is flagged `job-name-missing`.",
    ),
    "GoBackReason": Setting(
        "Optional, Required or Disabled",
        _one_of(*_MODES),
        "Whether devices ask why somebody goes back to an earlier step.",
    ),
    "PermanentDataEdit": Setting(*_BOOLEAN, "Devices allow edits of completed steps."),
    "RemoteExpertSolution": Setting(
        "null or a text", _or_null(_text), "The program that devices call a remote expert with."
    ),
    "Reports.DefaultReport": Setting(
        "null or the id of a report template that is not archived",
        _or_null(_text),
        "The template of reports that name none, the same as `/reporttemplates/v1/default`; null: the built-in one.",
    ),
    "RequiresAbandonReason": Setting(
        *_BOOLEAN,
        "A job that is abandoned without a reason is synced, and flagged `abandon-reason-missing`.",
    ),
    "StoreDBOnExternalStorage": Setting(*_BOOLEAN, "Devices keep their data on external storage."),
    "SupportsOnsight": Setting(*_BOOLEAN, "Devices offer calls with Onsight."),
    "WorkflowApproverMode": Setting(
        "0 or 1",
        _mode,
        "1: a new version of a workflow becomes active only when somebody with Workflow_Approve approves it.",
    ),
}


@get("/teamsettings/v1", opt=_READ, tags=_TAGS, summary="Get the team settings")
async def get_settings(request: SettingsRequest, database: NamedDependency[Database]) -> Response[bytes]:
    """Section 11.4."""
    return _answer(await database.read(queries.settings, request.user.team_id))


@get(
    "/teamsettings/v1/{setting_key:str}",
    opt=_READ,
    tags=_TAGS,
    summary="Get one team setting",
    description="The bare JSON value. `Reports.DefaultReport` names a setting inside another. Case does not matter.",
)
async def get_setting(
    request: SettingsRequest, database: NamedDependency[Database], setting_key: FromPath[str]
) -> Response[bytes]:
    """Section 11.3, whose example `{ true }` is no JSON."""
    value: Any = await database.read(queries.settings, request.user.team_id)
    for part in setting_key.split("."):
        found = [key for key in value if key.lower() == part.lower()] if isinstance(value, dict) else []
        if not found:
            raise Problem(404, "no-such-setting", f"There is no such setting. There are: {_names()}.")
        value = value[found[0]]
    return _answer(value)


@post(
    "/teamsettings/v1",
    status_code=200,
    opt=_ADMIN,
    tags=_TAGS,
    summary="Change team settings",
    description=(
        "Settings that are not sent stay, also those inside an object. An unknown key or a wrong value refuses "
        "all of it.\n\n"
        + "\n".join(f"- `{name}` ({setting.takes}): {setting.meaning}" for name, setting in SETTINGS.items())
    ),
)
async def change_settings(request: SettingsRequest, database: NamedDependency[Database]) -> Response[bytes]:
    """Section 11.2; answers as 11.4."""
    changes = _checked(bodies.decode(await request.body(), dict[str, Any]))

    def change(connection: Connection) -> dict[str, Any]:
        before = queries.settings(connection, request.user.team_id, lock=True)
        values = queries.merged(before, changes)
        if queries.default_report(values) != queries.default_report(before):
            _check_default(connection, request.user.team_id, queries.default_report(values))
        queries.set_settings(connection, request.user.team_id, values)
        return values

    return _answer(await database.settle(change))


@post(
    "/teamsettings/v1/defaults",
    status_code=200,
    opt=_ADMIN,
    tags=_TAGS,
    summary="Set the team settings to their defaults",
)
async def reset_settings(request: SettingsRequest, database: NamedDependency[Database]) -> Response[bytes]:
    """Section 11.1; answers as 11.4."""
    await database.settle(queries.set_settings, request.user.team_id, queries.DEFAULTS)
    return _answer(queries.DEFAULTS)


def _checked(body: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a body as they are kept.

    Raises:
        Problem: 422 ``unknown-setting`` naming every unknown key, or ``invalid-body`` for a value.
    """
    known = {name.lower(): name for name in SETTINGS}
    outer = {name.partition(".")[0].lower(): name.partition(".")[0] for name in SETTINGS if "." in name}
    flat: list[tuple[str, Any]] = []
    for key, value in body.items():
        if key.lower() in outer:
            if not isinstance(value, dict):
                raise bodies.invalid(key, f"{key} must be an object.")
            flat += [(f"{key}.{inner}", item) for inner, item in value.items()]
        else:
            flat.append((key, value))
    unknown = sorted(key for key, _ in flat if key.lower() not in known)
    if unknown:
        raise Problem(
            422,
            "unknown-setting",
            f"There are no settings {', '.join(unknown)}. There are: {_names()}.",
            field=unknown[0],
            extra={"unknown": unknown},
        )
    result: dict[str, Any] = {}
    for key, value in flat:
        name = known[key.lower()]
        setting = SETTINGS[name]
        try:
            checked = setting.value(value)
        except ValueError:
            raise bodies.invalid(key, f"{name} takes {setting.takes}.") from None
        first, _, second = name.partition(".")
        result = queries.merged(result, {first: {second: checked} if second else checked})
    return result


def _check_default(connection: Connection, team_id: int, template_id: str | None) -> None:
    """Refuse a default template that the team does not have, or that is archived."""
    if template_id is not None and not is_live(connection, team_id, template_id):
        raise Problem(
            422,
            "unknown-report-template",
            "The team has no such report template, or it is archived. Nothing was changed.",
            field="Reports.DefaultReport",
        )


def _names() -> str:
    return ", ".join(SETTINGS)


def _answer(value: Any) -> Response[bytes]:
    return json_response(msgspec.json.encode(value))


route_handlers = [get_settings, get_setting, change_settings, reset_settings]
