"""Where files are kept, as the setting says it: ``s3://bucket/prefix?endpoint=…&region=…``."""

from typing import NamedTuple
from urllib.parse import parse_qsl, urlsplit


class S3Location(NamedTuple):
    """A place in S3. ``prefix`` is empty or ends without a slash; ``endpoint`` is None for Amazon's own."""

    bucket: str
    prefix: str
    endpoint: str | None
    region: str | None


def parse_location(location: str) -> S3Location:
    """The parts of an S3 location.

    Raises:
        ValueError: it is none; the message says why.
    """
    parts = urlsplit(location)
    if parts.scheme != "s3" or not parts.netloc or "@" in parts.netloc:
        raise ValueError("takes s3://bucket/prefix?endpoint=https://…&region=…")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    unknown = sorted(options.keys() - {"endpoint", "region"})
    if unknown:
        raise ValueError(f"has no option {unknown[0]!r}: only endpoint and region")
    endpoint = options.get("endpoint") or None
    if endpoint is not None and not endpoint.startswith(("http://", "https://")):
        raise ValueError("takes an endpoint that begins with https:// or http://")
    return S3Location(parts.netloc, parts.path.strip("/"), endpoint, options.get("region") or None)


def check_location(location: str) -> None:
    """Raise ValueError unless files can be kept at ``location``; empty is the folder."""
    if location:
        parse_location(location)
