"""Times as people of a team read them."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_MINUTE_US = 60 * 1_000_000


def local(moment: int, zone: str) -> str:
    """A time as people of the team read it, with its zone.

    Raises:
        ValueError: it is in no year from 1 to 9999. Tablets send such times: what stands at the edge of the
            calendar in its own zone is beyond it in ours.
    """
    seconds = moment // 1_000_000
    try:
        local = datetime.fromtimestamp(seconds, ZoneInfo(zone))
    # Overflow: the last hours of the year 9999.
    except (ZoneInfoNotFoundError, ValueError, OSError, OverflowError):
        zone, local = "UTC", datetime.fromtimestamp(seconds, UTC)
    return f"{local:%Y-%m-%d %H:%M} ({zone})"


def span(microseconds: int) -> str:
    """A span of time in its two greatest units, a minute at least: ``1 day 3 hours``."""
    minutes = max(1, microseconds // _MINUTE_US)
    days, rest = divmod(minutes, 24 * 60)
    hours, minutes = divmod(rest, 60)
    parts = [(days, "day"), (hours, "hour"), (minutes, "minute")]
    named = [f"{count} {unit}" + ("" if count == 1 else "s") for count, unit in parts if count]
    return " ".join(named[:2])
