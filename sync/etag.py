"""Revisions on the wire: the ETag ``"<incarnation>.<rev>"``, quotes included."""


def format_etag(incarnation: str, rev: int) -> str:
    return f'"{incarnation}.{rev}"'


def parse_etag(text: str) -> tuple[str, int] | None:
    """(incarnation, rev) of an ETag, quoted or not, weak or not; None if it is none of ours."""
    incarnation, dot, rev = text.strip().removeprefix("W/").strip('"').rpartition(".")
    if not dot or not rev.isascii() or not rev.isdigit() or len(rev) > 18:
        return None
    return incarnation, int(rev)


def matches(header: str, etag: str) -> bool:
    """Whether an If-Match or If-None-Match header names ``etag`` (RFC 9110, 13.1; compared weakly, since
    compression on the way makes tags weak)."""
    return any(item.strip().removeprefix("W/") in ("*", etag) for item in header.split(","))
