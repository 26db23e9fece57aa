"""Workflow packages: a ZIP with ``workflow.xml`` at its root, read without trusting it.

A package is kept as it came; what is read here is its steps, for devices and reports. Three things may come of
a file:

* a :class:`Package` with its steps as JSON, compressed as it is stored;
* an opaque package: a ZIP that holds no ``workflow.xml``, or one that nobody can read, with the reason;
* :class:`PackageRefused`: no ZIP, or one that would harm those who unpack it.

Memory is bounded whatever comes: sizes are counted while reading, and each step becomes bytes at its end.
"""

import io
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree.ElementTree import Element, ParseError

import msgspec
import zstandard
from defusedxml.common import DefusedXmlException  # type: ignore[import-untyped]
from defusedxml.ElementTree import DefusedXMLParser, iterparse  # type: ignore[import-untyped]

from media.workflow_archive import (
    DAMAGED,
    WORKFLOW_FILE,
    Bounded,
    PackageRefused,
    checked,
    is_encrypted,
    name_of,
)

__all__ = ["Package", "PackageRefused", "read_package"]

MAX_XML_BYTES = 20 * 1024 * 1024
MAX_STEPS = 100_000
MAX_DEPTH = 100
#: Fifteen for each step of the largest workflow.
MAX_ELEMENTS = 1_500_000
#: Elements in memory at a time: those of the steps that are open, without the steps inside that have ended.
_MAX_PENDING = 50_000
#: A tag or comment.
_MAX_TAG = 1024 * 1024
#: What the JSON of one package may have. Short elements in a long namespace would grow without end.
_MAX_JSON = 100 * 1024 * 1024

_NUMBER = re.compile(r"-?\d{1,9}", re.ASCII)
_POSITION = re.compile(r"\s*(-?\d{1,9}(?:\.\d{1,9})?)\s*,\s*(-?\d{1,9}(?:\.\d{1,9})?)\s*", re.ASCII)
_TRUTH = {"true": True, "false": False}
#: In place of the tag of a step that has been read. No tag is like that.
_TAKEN = "}"
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}


class Package(NamedTuple):
    """What was read of a package.

    Attributes:
        steps: the procedure and its steps as a JSON object, compressed with zstandard; empty of an opaque one.
        names: stepId -> [title, tag, type] of all steps, likewise.
        problem: why it is opaque.
        given_up: it was not read to its end; another time it may be readable.
    """

    steps: bytes
    names: bytes
    problem: str | None
    given_up: bool = False

    @property
    def opaque(self) -> bool:
        return not self.steps


class _Unreadable(Exception):
    """The workflow.xml cannot be read; the text says why."""


def read_package(path: Path) -> Package:
    """Read the package at ``path``.

    Raises:
        PackageRefused: it is none, or not a safe one.
        OSError: the file cannot be read.
    """
    with path.open("rb") as raw, Bounded(raw) as file:
        try:
            archive = zipfile.ZipFile(file)
        except DAMAGED:
            raise PackageRefused(
                "not-a-package", "The file is no ZIP, or its end is missing. Send the whole package."
            ) from None
        with archive:
            found = [info for info in checked(archive, file) if name_of(info).casefold() == WORKFLOW_FILE]
            if not found:
                return _opaque(f"The package has no {WORKFLOW_FILE} at its root.")
            try:
                steps, names = _read_xml(_content(archive, found[0]))
            except _Unreadable as error:
                return _opaque(str(error))
    # Here rather than where they are stored: there everybody waits.
    return Package(zstandard.compress(steps), zstandard.compress(names), None)


def _opaque(problem: str) -> Package:
    return Package(b"", b"", problem)


def _content(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """The unpacked workflow.xml.

    Raises:
        _Unreadable: it is damaged, encrypted, or too long.
    """
    if is_encrypted(info):
        raise _Unreadable(f"{WORKFLOW_FILE} is encrypted.")
    if info.compress_type not in _METHODS:
        # Other methods may ask for memory as they like.
        raise _Unreadable(f"{WORKFLOW_FILE} is compressed in an uncommon way ({info.compress_type}).")
    content = bytearray()
    try:
        with archive.open(info) as file:
            while chunk := file.read(256 * 1024):
                content += chunk
                if len(content) > MAX_XML_BYTES:
                    raise _Unreadable(f"{WORKFLOW_FILE} has more than {MAX_XML_BYTES:,} bytes.")
    except DAMAGED:
        raise _Unreadable(f"{WORKFLOW_FILE} is damaged.") from None
    return bytes(content)


def _read_xml(content: bytes) -> tuple[bytes, bytes]:
    """A workflow.xml as the JSON of its procedure, and of the names of its steps.

    Raises:
        _Unreadable: it is not one.
    """
    try:
        parser = DefusedXMLParser(forbid_dtd=True)
        reading = _Reading()
        steps = reading.read(iterparse(_Fed(content, parser), events=("start", "end"), parser=parser))
        return steps, msgspec.json.encode(reading.names)
    except DefusedXmlException:
        raise _Unreadable(f"{WORKFLOW_FILE} declares a document type or entities.") from None
    except ParseError as error:
        raise _Unreadable(f"{WORKFLOW_FILE} is not well-formed: {error}.") from None
    except (ValueError, LookupError):
        raise _Unreadable(f"{WORKFLOW_FILE} is in an encoding that cannot be read.") from None


class _Fed:
    """The content on its way into the parser, as long as that gets on.

    The parser reads a tag or comment that goes on from its beginning with each piece, and whatever is in a tag
    before anybody can look at it.
    """

    def __init__(self, content: bytes, parser: Any) -> None:
        self._file = io.BytesIO(content)
        self._parser = parser

    def read(self, size: int) -> bytes:
        if self._file.tell() - self._parser.parser.CurrentByteIndex > _MAX_TAG:
            raise _Unreadable(f"{WORKFLOW_FILE} has a tag or comment of more than {_MAX_TAG:,} bytes.")
        return self._file.read(size)


class _OpenStep(NamedTuple):
    depth: int
    #: Elements that were in memory before it began.
    pending: int
    #: The steps inside it, as JSON.
    steps: list[msgspec.Raw]


class _Reading:
    """One workflow.xml on its way through: each step leaves the tree when it ends."""

    def __init__(self) -> None:
        #: stepId -> title, tag, type
        self.names: dict[str, tuple[str | None, str | None, str | None]] = {}
        self._path: list[Element] = []
        #: The procedure, and in it the steps that are open.
        self._open: list[_OpenStep] = []
        self._elements = 0
        self._pending = 0
        self._steps = 0
        self._left = _MAX_JSON

    def read(self, events: Iterator[tuple[str, Element]]) -> bytes:
        result = b""
        for event, element in events:
            if event == "start":
                self._begin(element)
                continue
            self._path.pop()
            if not self._path:
                result = self._procedure(element, self._open.pop().steps)
            elif self._open and self._open[-1].depth == len(self._path) + 1:
                ended = self._open.pop()
                self._open[-1].steps.append(self._step(element, ended.steps))
                # Removing it would search the parent, to which the parser has added more by now.
                element.clear()
                element.tag = _TAKEN
                self._pending = ended.pending
        return result

    def _begin(self, element: Element) -> None:
        self._elements += 1
        self._pending += 1
        depth = len(self._path) + 1
        if self._elements > MAX_ELEMENTS or self._pending > _MAX_PENDING or depth > MAX_DEPTH:
            raise _Unreadable(f"{WORKFLOW_FILE} has too many elements, or too many inside each other.")
        if not self._path:
            if _local(element.tag) != "Procedure":
                raise _Unreadable(f"The root of {WORKFLOW_FILE} is not a Procedure.")
            self._open.append(_OpenStep(1, 0, []))
        elif self._is_step(element, depth):
            self._steps += 1
            if self._steps > MAX_STEPS:
                raise _Unreadable(f"The workflow has more than {MAX_STEPS:,} steps.")
            self._open.append(_OpenStep(depth, self._pending - 1, []))
        self._path.append(element)

    def _is_step(self, element: Element, depth: int) -> bool:
        """Whether this is a Step in the Steps of the procedure or of a step; elsewhere it is something else."""
        return (
            depth == self._open[-1].depth + 2
            and _local(element.tag) == "Step"
            and _local(self._path[-1].tag) == "Steps"
        )

    def _procedure(self, root: Element, steps: list[msgspec.Raw]) -> bytes:
        parts = _Parts(self, root)
        body = {
            "procedureId": parts.text("ID"),
            "title": parts.text("Title"),
            "description": parts.text("Description"),
            "documentVersion": parts.text("DocVersion"),
            "packageVersion": parts.text("Version"),
            "author": parts.text("Author"),
            "metadata": parts.text("Metadata"),
            "dateModified": parts.text("DateModified"),
            "isReport": parts.truth_attribute(root, "IsReport") or False,
            "interlocked": parts.truth("Interlocked"),
            "exportReport": parts.inner_truth("Report", "Export"),
            "capabilities": parts.texts("Capabilities", "Capability"),
            "steps": self._taken(parts, steps),
        }
        return self._encoded({**body, "extra": parts.extra()})

    def _step(self, element: Element, steps: list[msgspec.Raw]) -> msgspec.Raw:
        parts = _Parts(self, element)
        parts.enter("Base")
        parts.enter("DesignerData", "Base")
        parts.enter("InputParameter")
        parts.enter("Constraint", "InputParameter")
        step_id, kind, input_type = (
            parts.attribute("Base", "ID"),
            parts.attribute("", "Type"),
            parts.text("InputType"),
        )
        title, tag = parts.text("Title", "Base"), parts.text("Tag", "Base")
        body = {
            "stepId": step_id,
            "type": kind,
            "title": title,
            "description": parts.text("Description", "Base"),
            "tag": tag,
            "inputType": input_type,
            "optional": parts.truth("IsOptional"),
            "constraint": parts.constraint(),
            "isReport": parts.truth_attribute(element, "IsReport") or False,
            "connections": parts.connections(),
            "position": parts.position(),
            "steps": self._taken(parts, steps),
        }
        if step_id is not None:
            self.names[step_id] = title, tag, input_type or kind
        return msgspec.Raw(self._encoded({**body, "extra": parts.extra()}))

    def _taken(self, parts: "_Parts", steps: list[msgspec.Raw]) -> list[msgspec.Raw]:
        parts.drop_emptied("Steps")
        return steps

    def _encoded(self, body: dict[str, Any]) -> bytes:
        encoded = msgspec.json.encode(body)
        if len(encoded) > _MAX_JSON:
            raise _too_long()
        return encoded

    def spend(self, characters: int) -> None:
        """Count what an unknown element adds."""
        self._left -= characters
        if self._left < 0:
            raise _too_long()


class _Parts:
    """The elements of a step or procedure: those that are known are taken one by one, the others remain.

    Elements are known by their place (names of the elements around them with ``/`` between), whatever their
    namespace. Of several of the same name the first is taken.
    """

    def __init__(self, reading: _Reading, element: Element) -> None:
        self._reading = reading
        self._attributes: dict[str, dict[str, str]] = {"": dict(element.attrib)}
        self._children: dict[str, list[Element]] = {"": list(element)}

    def enter(self, name: str, place: str = "") -> None:
        """Make the elements inside ``name`` known by their place."""
        found = self._take(name, place)
        if found is not None:
            inner = f"{place}/{name}" if place else name
            self._attributes[inner] = dict(found.attrib)
            self._children[inner] = list(found)

    def text(self, name: str, place: str = "") -> str | None:
        """The text of an element; None if it is not there. One with more than text in it remains, too."""
        found = self._take(name, place, bare=True)
        return None if found is None else found.text or ""

    def truth(self, name: str, place: str = "") -> bool | None:
        found = self._find(name, place)
        value = _TRUTH.get(_word(found)) if found is not None and not len(found) else None
        if value is not None:
            self._take(name, place, bare=True)
        return value

    def number(self, name: str, place: str) -> int | None:
        found = self._find(name, place)
        text = _word(found) if found is not None and not len(found) else ""
        if _NUMBER.fullmatch(text) is None:
            return None
        self._take(name, place, bare=True)
        return int(text)

    def texts(self, name: str, inner: str, place: str = "") -> list[str]:
        """The texts of the elements ``inner`` of an element; it remains if it holds anything else."""
        found = self._find(name, place)
        if found is None:
            return []
        if not found.attrib and all(_local(item.tag) == inner and _is_bare(item) for item in found):
            self._take(name, place)
        return [item.text or "" for item in found if _local(item.tag) == inner]

    def attribute(self, place: str, name: str) -> str | None:
        return self._attributes.get(place, {}).pop(name, None)

    def truth_attribute(self, element: Element, name: str) -> bool | None:
        value = _TRUTH.get(element.get(name, "").strip().lower())
        if value is not None:
            self.attribute("", name)
        return value

    def inner_truth(self, name: str, attribute: str) -> bool | None:
        """An attribute of an element that has nothing else."""
        found = self._find(name, "")
        value = _TRUTH.get(found.get(attribute, "").strip().lower()) if found is not None else None
        if found is not None and value is not None and len(found.attrib) == 1 and not len(found):
            self._take(name, "")
        return value

    def constraint(self) -> dict[str, Any] | None:
        place = "InputParameter/Constraint"
        if place not in self._children:
            return None
        return {
            "type": self.text("ConstraintType", place),
            "choices": self.texts("Choices", "Choice", place),
            "fixedMode": self.truth("FixedMode", place),
            "min": self.number("MinSelection", place),
            "max": self.number("MaxSelection", place),
        }

    def connections(self) -> list[dict[str, str | None]]:
        known = {"ID": "id", "Type": "type", "Source": "source", "Sink": "sink"}
        found = self._find("Connections", "Base")
        if found is None:
            return []
        items = [item for item in found if _local(item.tag) == "Connection"]
        if not found.attrib and all(
            _local(item.tag) == "Connection" and not len(item) and item.attrib.keys() <= known.keys()
            for item in found
        ):
            self._take("Connections", "Base")
        return [{key: item.get(name) for name, key in known.items()} for item in items]

    def position(self) -> dict[str, float] | None:
        place = "Base/DesignerData"
        # How the designer draws it; of no use to anybody else.
        self._take("Size", place)
        self._take("ConnectionAnchors", place)
        found = self._find("Position", place)
        matched = _POSITION.fullmatch(found.text or "") if found is not None and _is_bare(found) else None
        if matched is None:
            return None
        self._take("Position", place)
        return {"x": float(matched[1]), "y": float(matched[2])}

    def drop_emptied(self, name: str) -> None:
        """Forget an element that held nothing but steps."""
        found = self._find(name, "")
        if found is not None and not found.attrib and all(child.tag == _TAKEN for child in found):
            self._take(name, "")

    def extra(self) -> dict[str, Any]:
        """Everything that was not taken, as it is."""
        attributes = [
            {"in": place, "name": name, "value": value}
            for place, known in self._attributes.items()
            for name, value in known.items()
        ]
        elements = [
            {"in": place, **self._generic(child)} for place, rest in self._children.items() for child in rest
        ]
        result: dict[str, Any] = {}
        if attributes:
            result["attributes"] = attributes
        if elements:
            result["elements"] = elements
        return result

    def _generic(self, element: Element) -> dict[str, Any]:
        """An unknown element: name, namespace, attributes, text, elements, and the text that follows it."""
        namespace, _, name = element.tag.rpartition("}")
        self._reading.spend(len(namespace) + sum(map(len, element.attrib)))
        result: dict[str, Any] = {"name": name}
        if namespace:
            result["namespace"] = namespace.removeprefix("{")
        if element.attrib:
            result["attributes"] = dict(element.attrib)
        text = element.text or ""
        # Between elements, blanks are the writer's indentation.
        if text and (not len(element) or text.strip()):
            result["text"] = text
        children = [self._generic(child) for child in element if child.tag != _TAKEN]
        if children:
            result["elements"] = children
        if element.tail and element.tail.strip():
            result["tail"] = element.tail
        return result

    def _find(self, name: str, place: str) -> Element | None:
        for child in self._children.get(place, ()):
            if _local(child.tag) == name:
                return child
        return None

    def _take(self, name: str, place: str, bare: bool = False) -> Element | None:
        """Take the first element of this name; ``bare``: let it remain if it has more than text."""
        found = self._find(name, place)
        if found is not None and (not bare or _is_bare(found)):
            self._children[place].remove(found)
        return found


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]


def _word(element: Element) -> str:
    return (element.text or "").strip().lower()


def _is_bare(element: Element) -> bool:
    return not element.attrib and not len(element)


def _too_long() -> _Unreadable:
    return _Unreadable(f"What {WORKFLOW_FILE} holds is too long.")
