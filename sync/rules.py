"""What a team's settings ask of its jobs. Nothing here refuses a snapshot: what is missing is flagged."""

from functools import lru_cache

import msgspec

#: Flags in ``sync.flags``.
ABANDON_REASON_MISSING = "abandon-reason-missing"
JOB_NAME_MISSING = "job-name-missing"
JOB_RESTARTED = "job-restarted"
#: Warnings in the answer to a push.
DEVICE_CLOCK = "device-clock"

#: From here on a device's clock is warned of, microseconds.
CLOCK_TOLERANCE_US = 120 * 1_000_000


class Rules(msgspec.Struct, frozen=True):
    """The team settings that syncing looks at, by their names in section 11.4."""

    requires_abandon_reason: bool = msgspec.field(default=False, name="RequiresAbandonReason")
    job_naming: bool = msgspec.field(default=False, name="EnableJobNaming")
    restart_disabled: bool = msgspec.field(default=False, name="DisableJobRestart")
    check_device_time: bool = msgspec.field(default=False, name="CheckDeviceTime")

    def warnings(self, clock_offset: int) -> tuple[str, ...]:
        """What a device is warned of whose times were moved by ``clock_offset`` microseconds."""
        return (DEVICE_CLOCK,) if self.check_device_time and abs(clock_offset) > CLOCK_TOLERANCE_US else ()


NO_RULES = Rules()
_rules = msgspec.json.Decoder(Rules)


@lru_cache(maxsize=1024)
def rules_of(settings: bytes | None) -> Rules:
    """The rules in a team's stored settings, which hold only what is not at its default."""
    rules = _rules.decode(settings) if settings else NO_RULES
    # One object for all teams without rules: that is how the hot path tells that there is nothing to look at.
    return NO_RULES if rules == NO_RULES else rules


def flags(rules: Rules, status: bytes, reason: bytes, title: bytes, restarted: bool) -> list[str]:
    """The flags of a job.

    Args:
        status, reason, title: as shown, raw JSON.
        restarted: the status shown is an incomplete one that took the place of a finished one.
    """
    found: list[str] = []
    if rules.requires_abandon_reason and status.lower() == b'"abandoned"' and _blank(reason):
        found.append(ABANDON_REASON_MISSING)
    if rules.job_naming and _blank(title):
        found.append(JOB_NAME_MISSING)
    if rules.restart_disabled and restarted:
        found.append(JOB_RESTARTED)
    return found


def _blank(value: bytes) -> bool:
    if value == b"null":
        return True
    text = msgspec.json.decode(value)
    return isinstance(text, str) and not text.strip()
