"""What templates of reports can do with values beside what Jinja2 brings. Documented in docs/reports.md."""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, tzinfo
from urllib.parse import quote
from zoneinfo import ZoneInfo

from jinja2 import Undefined, pass_context
from jinja2.runtime import Context
from markupsafe import Markup, escape

_PLACES = 2


@pass_context
def as_date(context: Context, value: object, zone: str | None = None, format: str = "%Y-%m-%d") -> object:
    """The day of an ISO 8601 text: ``{{ job.created | date('Europe/Warsaw', '%d.%m.%Y') }}``."""
    return _formatted(context, value, zone, format)


@pass_context
def as_time(context: Context, value: object, zone: str | None = None, format: str = "%H:%M") -> object:
    """The time of day of an ISO 8601 text."""
    return _formatted(context, value, zone, format)


@pass_context
def as_datetime(
    context: Context, value: object, zone: str | None = None, format: str = "%Y-%m-%d %H:%M"
) -> object:
    """Day and time of an ISO 8601 text."""
    return _formatted(context, value, zone, format)


def number(value: object, places: int | None = None, point: str = ".", groups: str = ",") -> object:
    """``{{ 12345.678 | number(1) }}`` is 12,345.7, and ``number(1, ',', ' ')`` 12 345,7."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    text = f"{value:,}" if places is None else f"{value:,.{min(max(places, 0), 20)}f}"
    return text.translate({ord(","): groups, ord("."): point})


def duration(value: object) -> object:
    """Seconds as people say them: 45 s, 12 min, 1 h 02 min, 3 d 04 h."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    seconds = int(value)
    if seconds < 0:
        return f"-{duration(-seconds)}"
    minutes, hours = seconds // 60, seconds // 3600
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{minutes} min"
    if hours < 100:
        return f"{hours} h {minutes % 60:02} min"
    return f"{hours // 24} d {hours % 24:02} h"


def coordinates(value: object, places: int = 5) -> object:
    """A latitude and a longitude in degrees: 47.37689° N, 8.54169° W. Five places are a metre."""
    place = _place(value)
    if place is None:
        return value
    places = min(max(places, 0), 10)
    latitude, longitude = place
    north, east = "N" if latitude >= 0 else "S", "E" if longitude >= 0 else "W"
    return f"{abs(latitude):.{places}f}° {north}, {abs(longitude):.{places}f}° {east}"


def map_link(value: object, zoom: int = 17) -> str:
    """The address of a map with a pin, for ``href``; nothing is fetched. ``#`` if there is no place."""
    place = _place(value)
    if place is None:
        return "#"
    latitude, longitude = (quote(f"{degrees:.6f}") for degrees in place)
    return f"https://www.openstreetmap.org/?mlat={latitude}&mlon={longitude}#map={int(zoom)}/{latitude}/{longitude}"


def lines(value: object) -> object:
    """A text with its line ends as ``<br>``."""
    if isinstance(value, Undefined) or value is None:
        return value
    return Markup("<br>").join(escape(line) for line in re.split(r"\r\n|\r|\n", str(value)))


FILTERS: Mapping[str, Callable[..., object]] = {
    "date": as_date,
    "time": as_time,
    "datetime": as_datetime,
    "number": number,
    "duration": duration,
    "coordinates": coordinates,
    "map_link": map_link,
    "lines": lines,
}


def _formatted(context: Context, value: object, zone: str | None, format: str) -> object:
    """A moment in a zone: the one named, else the team's (``team.timeZone``), else the text's own. What is no
    moment stays as it is."""
    if not isinstance(value, str):
        return value
    try:
        moment = datetime.fromisoformat(value)
        if re.fullmatch(r"\d{4}-?\d\d-?\d\d", value):  # a day alone
            return date(moment.year, moment.month, moment.day).strftime(format)
        wanted = _zone(zone or _team_zone(context))
        if wanted is not None:
            moment = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(wanted)
        return moment.strftime(format)
    except (ValueError, OverflowError):  # no moment, or one before the year 1 or after 9999 in that zone
        return value


def _team_zone(context: Context) -> str | None:
    team = context.get("team")
    name = team.get("timeZone") if isinstance(team, Mapping) else None
    return name if isinstance(name, str) else None


def _zone(name: str | None) -> tzinfo | None:
    if not name:
        return None
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        return None


def _place(value: object) -> tuple[float, float] | None:
    """Latitude and longitude of a pair, or of an object with these members."""
    if isinstance(value, Mapping):
        value = (value.get("latitude"), value.get("longitude"))
    if not isinstance(value, list | tuple) or len(value) != _PLACES:
        return None
    latitude, longitude = value
    if any(isinstance(each, bool) or not isinstance(each, int | float) for each in value):
        return None
    return float(latitude), float(longitude)
