"""The time as it is stored and printed."""

import time
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def now() -> int:
    """Microseconds since the epoch: the form of every time column."""
    return time.time_ns() // 1000


def printed(microseconds: int) -> str:
    """A stored time as the specification's examples print it: ``2021-07-05T13:12:44.744Z``."""
    moment = _EPOCH + timedelta(microseconds=microseconds)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
