"""The first specification as facts (tests/contracts/specification.json), and a conversation along them."""

import io
import json
import re
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote, urlencode

import httpx

from fixtures.workflow_packages import inspection, workflow_xml

T = TypeVar("T")

FACTS = Path(__file__).resolve().parents[1] / "contracts" / "specification.json"

#: Values of ``policy`` that are no policies.
ANY_TOKEN, NO_TOKEN = "any valid token", "none"

_PLACEHOLDER = re.compile(r"\{\{(\w+)\}\}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,7})?Z", re.ASCII)
_WAIT_SECONDS = 30.0


class Address(NamedTuple):
    """A method and an address, its parameters as ``{name}``."""

    method: str
    template: str

    def spellings(self) -> list["Address"]:
        """With a slash at the end and without."""
        bare = self.template.rstrip("/")
        return [Address(self.method, bare), Address(self.method, f"{bare}/")]

    def __str__(self) -> str:
        return f"{self.method} {self.template}"


@dataclass(frozen=True)
class Operation:
    """One operation; the meaning of each member stands in the file of facts."""

    section: str
    name: str
    method: str
    path: str
    policy: str
    status: int | list[int]
    answer: Any
    also: list[str] = field(default_factory=list)
    parameters: dict[str, str] = field(default_factory=dict)
    query: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    body: Any = None
    form: dict[str, str] | None = None
    content: str = "application/json"
    gives: dict[str, str] = field(default_factory=dict)
    key: bool = False
    blank: bool = False
    repaired: str | None = None
    deviation: str | None = None
    served: bool = True

    @property
    def addresses(self) -> list[Address]:
        """Where it is served: as printed, then the others."""
        others = [Address(*entry.split(" ")) for entry in self.also]
        return [Address(self.method, self.path), *others]


class Specification(NamedTuple):
    """All facts."""

    values: dict[str, Any]
    bodies: dict[str, Any]
    shapes: dict[str, Any]
    operations: dict[str, Operation]


@cache
def specification() -> Specification:
    """The facts, as they stand in the file. A member that is not known is an error."""
    facts = json.loads(FACTS.read_text(encoding="utf-8"))
    operations = [Operation(**entry) for entry in facts["operations"]]
    by_section = {operation.section: operation for operation in operations}
    assert len(by_section) == len(operations), "a section stands in the file twice"
    return Specification(facts["values"], facts["bodies"], facts["shapes"], by_section)


# Shapes


def mismatches(value: Any, shape: Any, where: str = "$") -> list[str]:
    """Where ``value`` has not the shape; the language of shapes is described in the file of facts."""
    if isinstance(shape, str):
        return _against_names(value, shape, where)
    if isinstance(shape, list):
        if not isinstance(value, list):
            return [f"{where} is no array but {value!r}"]
        if shape and not value:
            return [f"{where} is empty, so that nothing can be said of its entries"]
        return [
            line
            for index, entry in enumerate(value)
            for inner in shape
            for line in mismatches(entry, inner, f"{where}[{index}]")
        ]
    if not isinstance(value, dict):
        return [f"{where} is no object but {value!r}"]
    return [line for key, inner in shape.items() for line in _member(value, key, inner, where)]


def _member(value: Mapping[str, Any], key: str, shape: Any, where: str) -> list[str]:
    if key.startswith("<"):
        wrong = [
            f"{where} has the key {name!r}, which is no {key}" for name in value if not _is(name, key[1:-1])
        ]
        empty = [] if value else [f"{where} is empty, so that nothing can be said of its entries"]
        inner = [line for name in value for line in mismatches(value[name], shape, f"{where}.{name}")]
        return wrong + empty + inner
    if key not in value:
        return [f"{where} has no {key}"]
    return mismatches(value[key], shape, f"{where}.{key}")


def _against_names(value: Any, names: str, where: str) -> list[str]:
    found: list[str] = []
    for name in names.split("|"):
        if name.startswith("@"):
            lines = mismatches(value, specification().shapes[name[1:]], where)
        else:
            lines = [] if _is(value, name) else [f"{where} is no {name} but {value!r}"]
        if not lines:
            return []
        # What is wrong inside says more than that it is not null either.
        if len(lines) > len(found) or not found:
            found = lines
    return found


def _is(value: Any, name: str) -> bool:
    match name:
        case "any":
            return True
        case "null":
            return value is None
        case "boolean":
            return isinstance(value, bool)
        case "integer":
            return isinstance(value, int) and not isinstance(value, bool)
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "object":
            return isinstance(value, dict)
        case "string":
            return isinstance(value, str)
        case "time":
            return isinstance(value, str) and _TIME.fullmatch(value) is not None
        case "url":
            return isinstance(value, str) and re.match(r"https?://\S+$", value) is not None
        case "id":
            return isinstance(value, str) and value.isprintable() and value != "" and "/" not in value
    raise AssertionError(f"there is no type {name}")


# Requests


def filled(template: Any, known: Mapping[str, Any]) -> Any:
    """``template`` with its placeholders filled in and its references to bodies followed.

    What is not known is named in the value: the request goes on, and its answer shows what was missing.
    """
    if isinstance(template, dict):
        return {filled(key, known): filled(value, known) for key, value in template.items()}
    if isinstance(template, list):
        return [filled(entry, known) for entry in template]
    if not isinstance(template, str):
        return template
    if template.startswith("@"):
        return filled(specification().bodies[template[1:]], known)
    whole = _PLACEHOLDER.fullmatch(template)
    if whole:
        return known.get(whole[1], f"unknown-{whole[1]}")
    return _PLACEHOLDER.sub(lambda found: str(known.get(found[1], f"unknown-{found[1]}")), template)


def placeholders(template: Any) -> set[str]:
    """The names of the values that ``template`` needs."""
    return set(_PLACEHOLDER.findall(json.dumps(template)))


def part(document: Any, path: str) -> Any:
    """A part of a document, such as ``tasks.0.taskId``; None if it is not there."""
    for step in path.split("."):
        if isinstance(document, list):
            document = document[int(step)] if int(step) < len(document) else None
        else:
            document = document.get(step) if isinstance(document, dict) else None
    return document


class Block(NamedTuple):
    """A block of a file. ``end`` is what the range says."""

    start: int
    end: int
    content: bytes


def blocks(content: bytes, size: int) -> list[Block]:
    """A file in blocks, the ends of their ranges as section 14.4.2 prints them."""
    pieces = [(start, content[start : start + size]) for start in range(0, len(content), size)]
    return [Block(start, start + len(piece) - 1, piece) for start, piece in pieces]


@dataclass(frozen=True)
class Exchange:
    """What was asked for an operation, and what the answer was."""

    address: Address
    expected: int
    response: httpx.Response

    def __str__(self) -> str:
        return f"{self.address}: {self.response.status_code} {self.response.text[:500]}"


class Conversation:
    """Requests after the facts, with what earlier answers gave.

    Args:
        http: where the server is.
        authorization: an owner's header.
    """

    def __init__(self, http: httpx.Client, authorization: str, **values: Any) -> None:
        self.http = http
        self.authorization = authorization
        self.known: dict[str, Any] = {**specification().values, **values}
        self.exchanges: dict[str, list[Exchange]] = {section: [] for section in specification().operations}

    def ask(
        self,
        section: str,
        *,
        at: Address | None = None,
        by: str | None = None,
        body: Any = None,
        change: Mapping[str, Any] | None = None,
        known: Mapping[str, Any] | None = None,
        last: bool = True,
    ) -> httpx.Response:
        """Ask one operation, and remember the answer and what it gives.

        Args:
            at: one of its addresses, instead of the printed one.
            by: another Authorization than the owner's.
            body: another body than the printed one.
            change: members of the body that differ.
            known: values that count for this request only; what its answer gives is not kept then.
            last: not one of several blocks, or the last of them.
        """
        operation = specification().operations[section]
        address = at or operation.addresses[0]
        values = {**self.known, **(known or {})}
        content = operation.body if body is None else body
        content = filled(content, values)
        if change is not None:
            content = {**content, **change}
        response = self.send(operation, address, values, content, by or self.authorization)
        statuses = operation.status if isinstance(operation.status, list) else [operation.status]
        self.exchanges[section].append(Exchange(address, statuses[-1 if last else 0], response))
        if known is None:
            answer = document(response)
            given = {name: part(answer, path) for name, path in operation.gives.items()}
            self.known.update({name: value for name, value in given.items() if value is not None})
        return response

    def send(
        self,
        operation: Operation,
        address: Address,
        known: Mapping[str, Any],
        content: Any,
        authorization: str | None,
    ) -> httpx.Response:
        """One request with exactly the headers that the document prints."""
        headers = {name: str(filled(value, known)) for name, value in operation.headers.items()}
        if authorization is not None and operation.policy != NO_TOKEN:
            headers["Authorization"] = authorization
        if operation.form is not None:
            content = urlencode(filled(operation.form, known))
        elif content is not None and not isinstance(content, bytes):
            content = json.dumps(content)
        return self.http.request(
            address.method,
            path_of(operation, address, known),
            params=filled(operation.query, known) or None,
            headers=headers,
            content=content,
        )

    def everywhere(self, section: str, **options: Any) -> None:
        """Ask an operation that can be repeated, at each of its addresses, with and without a slash."""
        for address in specification().operations[section].addresses:
            for spelling in address.spellings():
                self.ask(section, at=spelling, **options)

    def upload(self, session: str, block: str, content: bytes) -> None:
        """Open a session and send a file in blocks: the sections that do it."""
        self.known["fileSize"] = len(content)
        self.ask(session)
        pieces = blocks(content, self.known["blockSize"])
        assert len(pieces) == 2, "the document's example has two blocks"
        for index, piece in enumerate(pieces):
            values = {"blockLength": len(piece.content), "blockStart": piece.start, "blockEnd": piece.end}
            self.ask(block, known={**values, "block": piece.content}, last=index == len(pieces) - 1)

    def wait_until(self, section: str, path: str) -> None:
        """Wait until a part of an answer is there, or the answer is a refusal."""
        operation = specification().operations[section]

        def there() -> bool:
            response = self.send(operation, operation.addresses[0], self.known, None, self.authorization)
            return response.status_code != 200 or part(document(response), path) is not None

        eventually(there)


def eventually(look: Callable[[], T]) -> T:
    """What ``look`` finds once it finds something, or at the last try: some work is done after an answer."""
    deadline = time.monotonic() + _WAIT_SECONDS
    while not (found := look()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def path_of(operation: Operation, address: Address, known: Mapping[str, Any]) -> str:
    """The address with its parameters."""
    values = {name: quote(str(filled(value, known)), safe="") for name, value in operation.parameters.items()}
    return address.template.format(**values)


def document(response: httpx.Response) -> Any:
    """The answer as JSON; None if it is none."""
    try:
        return response.json()
    except ValueError:
        return None


# Files


def package(size: int) -> bytes:
    """A workflow package of exactly this many bytes: its steps, and a video that makes up the rest."""
    xml = workflow_xml(inspection())
    return _zip(xml, bytes(size - len(_zip(xml, b""))))


def _zip(xml: bytes, video: bytes) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("workflow.xml", xml)
        archive.writestr("video.mp4", video)
    return target.getvalue()


def table(size: int) -> bytes:
    """A CSV file of exactly this many bytes, with the columns of section 4.1."""
    content = io.BytesIO()
    content.write(b"PenID,AnimalID,AnimalName,InspectionTime\r\n")
    for row in _rows():
        if content.tell() + len(row) + 40 > size:
            break
        content.write(row)
    last = b"1,A0,%s,2025-03-03T09:00\r\n"
    content.write(last % (b"x" * (size - content.tell() - len(last) + 2)))
    assert content.tell() == size
    return content.getvalue()


def _rows() -> Iterator[bytes]:
    number = 0
    while True:
        number += 1
        yield b"%d,A%d,Berta %d,2025-03-03T09:%02d\r\n" % (number % 40, number, number, number % 60)
