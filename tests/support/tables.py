"""Answers to queries as tables."""

import csv
import io
from typing import Any

from server.query.documents import read
from server.query.flat import csv_lines
from server.query.selecting import Field, select

BOM = b"\xef\xbb\xbf"


def fields(query: str, **variables: object) -> tuple[Field, ...]:
    return select(read(query), None, variables)


def parsed(content: bytes) -> list[list[str]]:
    assert content.startswith(BOM)
    return list(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True))


def table(query: str, data: dict[str, Any]) -> list[list[str]]:
    return parsed(b"".join(csv_lines(fields(query), data)))


def cell(value: Any) -> str:
    ((name,), (written,)) = table("{ jobs { jobTitle } }", {"jobs": [{"jobTitle": value}]})
    assert name == "jobTitle"
    return written


def json_values(*values: Any) -> list[list[str]]:
    """The table of the field value of the first metadata of several jobs."""
    jobs = [{"metadata": [{"value": value}]} for value in values]
    header, *rows = table("{ jobs { metadata { value } } }", {"jobs": jobs})
    return [[name.removeprefix("metadata.0.") for name in header], *rows]
