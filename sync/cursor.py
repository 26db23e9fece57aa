"""``completedJobCursor``: a job's place in the order of completions, on the wire.

24 hexadecimal digits, of which nobody outside need know what they say: a mark of the team's incarnation, for after a
restore from a backup numbers may be given to other jobs, and the number.
"""

import hashlib
import re

_MARK = 8
_CURSOR = re.compile(r"[0-9a-f]{24}")


def format_cursor(incarnation: str, seq: int) -> str:
    return f"{mark_of(incarnation)}{seq:016x}"


def parse_cursor(text: str) -> tuple[str, int] | None:
    """(mark, seq) of a cursor; None if it is none."""
    if not _CURSOR.fullmatch(text):
        return None
    # Of a cursor that somebody made up: no more than a database takes.
    return text[:_MARK], int(text[_MARK:], 16) & (2**63 - 1)


def mark_of(incarnation: str) -> str:
    return hashlib.blake2b(incarnation.encode(), digest_size=_MARK // 2).hexdigest()
