"""An answer as a table (section 3.4.3): CSV for spreadsheets, and safe to open in them.

Each item of a root field is a row. What lies in it is flattened into columns, named by the way that leads there:
``jobTitle``, ``repair.value``, ``steps.0.stepTitle``. They stand in the order of selection, depth first; of a list all
columns of 0, then all of 1. If there are several root fields, the rows of the first come before those of the second, and
the names of columns begin with the key of the root field; a root field that is null has no rows.

A list is as wide as its longest in this answer, counted for each place by itself: that one job has a form as its third
step does not widen the first. What was selected keeps its columns when nothing is there, of each list at least those
of 0, since programs that ask again every day rely on names. A field of type JSON has a column of its own in any case,
and further ones for the places of lists and the members of objects that are found, by first appearance.

Cells: null is empty, ``true`` and ``false``, numbers as in the JSON. A text that a spreadsheet might take for a formula
gets an apostrophe in front, unless it is a plain number such as ``-12.5``, which means the same either way.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple, Protocol

from graphql import GraphQLObjectType, get_named_type, get_nullable_type, is_list_type

from server.query.cells import line_of
from server.query.documents import SCHEMA
from server.query.selecting import Field

_CHUNK = 64 * 1024
#: Excel takes a file that is double-clicked for the computer's old code page unless it begins so. Power Query reads
#: UTF-8 with and without.
_BOM = "\ufeff"
#: Lists and objects within a JSON value that become columns; what lies deeper is one cell, as JSON.
_JSON_DEPTH = 5
#: Characters of a JSON member's name that are told in the column's; else one long name is repeated by all within it.
_NAME_LENGTH = 100
_SURROGATES = re.compile("[\ud800-\udfff]")


def csv_lines(fields: tuple[Field, ...], data: Mapping[str, Any]) -> Iterator[bytes]:
    """The table of an answer, as UTF-8 with a byte order mark, in chunks of about 64 KB that end with a line.

    Args:
        fields: of the root.
        data: what was answered, by key. Objects have what was selected of them.
    """
    pending, size = [_BOM], 0
    for line in _lines(fields, data):
        pending += (line, "\r\n")
        size += len(line)
        if size >= _CHUNK:
            yield _encoded("".join(pending))
            pending, size = [], 0
    if pending:
        yield _encoded("".join(pending))


def _lines(fields: tuple[Field, ...], data: Mapping[str, Any]) -> Iterator[str]:
    roots: list[tuple[_Columns, list[Any]]] = []
    names: list[str] = []
    for field in fields:
        value = data.get(field.key)
        items = value if isinstance(value, list) else [] if value is None else [value]
        is_object = _kind(field.of, field.name).is_object
        columns = _object(field.fields, items) if is_object else _Json.of(items)
        if columns.width:
            roots.append((columns, items))
            names += columns.names("" if is_object and len(fields) == 1 else field.key)
    yield line_of(names)
    before, width = 0, len(names)
    for columns, items in roots:
        left, right = "," * before, "," * (width - before - columns.width)
        for item in items:
            # A line without anything is no row for those who read it.
            yield f"{left}{columns.text(item)}{right}" or '""'
        before += columns.width


class _Columns(Protocol):
    """The columns of one place in the answer, such as ``steps.3``, next to each other.

    Attributes:
        width: how many they are.
    """

    width: int

    def names(self, path: str) -> Iterable[str]:
        """What they are called; ``path`` leads to this place."""

    def text(self, value: Any) -> str:
        """The cells of what stands here, in one row, with the commas between them."""


class _Plain:
    """Members of an object that are neither lists nor objects."""

    def __init__(self, keys: Sequence[str]) -> None:
        self.width = len(keys)
        self._keys = tuple(keys)
        self._blank = "," * (self.width - 1)

    def names(self, path: str) -> Iterable[str]:
        return [_below(path, key) for key in self._keys]

    def text(self, value: Any) -> str:
        return self._blank if value is None else line_of(map(value.get, self._keys))


class _PlainList:
    """A list of texts."""

    def __init__(self, lists: Iterable[list[Any]]) -> None:
        self.width = max(map(len, lists), default=0) or 1

    def names(self, path: str) -> Iterable[str]:
        return [f"{path}.{index}" for index in range(self.width)]

    def text(self, value: Any) -> str:
        return line_of(value) + "," * (self.width - len(value)) if value else "," * (self.width - 1)


class _Object:
    """An object. A part without a key stands for members of the object itself."""

    def __init__(self, parts: list[tuple[str | None, _Columns]]) -> None:
        self.width = sum(columns.width for _, columns in parts)
        self._parts = parts

    def names(self, path: str) -> Iterator[str]:
        for key, columns in self._parts:
            yield from columns.names(path if key is None else _below(path, key))

    def text(self, value: Any) -> str:
        if value is None:
            return "," * (self.width - 1)
        return ",".join(
            [columns.text(value if key is None else value.get(key)) for key, columns in self._parts]
        )


class _List:
    """A list of objects."""

    def __init__(self, items: list[_Columns]) -> None:
        self.width = sum(item.width for item in items)
        self._items = items

    def names(self, path: str) -> Iterator[str]:
        for index, item in enumerate(self._items):
            yield from item.names(f"{path}.{index}")

    def text(self, value: Any) -> str:
        if not value:
            return "," * (self.width - 1)
        cells = [columns.text(item) for columns, item in zip(self._items, value, strict=False)]
        rest = sum(columns.width for columns in self._items[len(value) :])
        return ",".join(cells) + "," * rest


class _Json:
    """A JSON value, of which only the data tells what is in it. First its own cell, then the places of lists, then members."""

    __slots__ = ("_depth", "_has_own", "_items", "_members", "_offset", "width")  # there may be many

    def __init__(self, depth: int = _JSON_DEPTH) -> None:
        self.width = 0
        self._depth = depth
        self._offset = 0  # how many columns of what it lies in come before
        self._has_own = False
        self._items: list[_Json] = []
        self._members: dict[str, _Json] = {}

    @classmethod
    def of(cls, values: Iterable[Any], is_list: bool = False) -> "_Json":
        """The columns of these values; ``is_list`` if only lists are expected."""
        columns = cls()
        if is_list:
            columns._item(0)._has_own = True
        else:
            columns._has_own = True
        for value in values:
            columns._grow(value)
        columns._settle()
        return columns

    def _item(self, index: int) -> "_Json":
        if index == len(self._items):
            self._items.append(_Json(self._depth - 1))
        return self._items[index]

    def _member(self, name: str) -> "_Json":
        if name not in self._members:
            self._members[name] = _Json(self._depth - 1)
        return self._members[name]

    def _inner(self, value: Any) -> "Iterable[tuple[_Json, Any]] | None":
        """What lies within a value, each with its columns; None if the value is one cell."""
        if self._depth and isinstance(value, list):
            return ((self._item(index), item) for index, item in enumerate(value))
        if self._depth and isinstance(value, dict):
            return ((self._member(name), item) for name, item in value.items())
        return None

    def _grow(self, value: Any) -> None:
        inner = self._inner(value)
        if inner is not None:
            for columns, item in inner:
                columns._grow(item)
        elif value is not None:
            self._has_own = True

    def _settle(self) -> None:
        self._has_own = self._has_own or not (self._items or self._members)
        self.width = int(self._has_own)
        for columns in (*self._items, *self._members.values()):
            columns._settle()
            columns._offset = self.width
            self.width += columns.width

    def names(self, path: str) -> Iterator[str]:
        # The member "a.b" and the b of the member "a" would be called alike.
        times: dict[str, int] = {}
        for name in self._names(path):
            told = name
            while told in times:
                times[name] += 1
                told = f"{name} ({times[name]})"
            times[told] = 1
            yield told

    def _names(self, path: str) -> Iterator[str]:
        if self._has_own:
            yield path
        for index, item in enumerate(self._items):
            yield from item._names(f"{path}.{index}")
        for name, member in self._members.items():
            yield from member._names(f"{path}.{name[:_NAME_LENGTH]}")

    def text(self, value: Any) -> str:
        inner = self._inner(value)
        if inner is None:
            return line_of([value]) + "," * (self.width - 1) if self._has_own else "," * (self.width - 1)
        # Only what is there is looked at: of thousands of members that any row has, one row may have ten.
        cells: list[str] = []
        reached = 0
        for columns, item in sorted(inner, key=lambda found: found[0]._offset):
            if columns._offset > reached:
                cells.append("," * (columns._offset - reached - 1))
            cells.append(columns.text(item))
            reached = columns._offset + columns.width
        if reached < self.width:
            cells.append("," * (self.width - reached - 1))
        return ",".join(cells)


class _Kind(NamedTuple):
    """What a field holds; with ``is_list`` a list of such."""

    is_list: bool
    is_object: bool
    is_json: bool


@cache
def _kind(of: str, name: str) -> _Kind:
    if name.startswith("__"):
        return _Kind(is_list=False, is_object=False, is_json=True)
    owner = SCHEMA.type_map[of]
    assert isinstance(owner, GraphQLObjectType)
    kind = owner.fields[name].type
    inner = get_named_type(kind)
    return _Kind(
        is_list_type(get_nullable_type(kind)), isinstance(inner, GraphQLObjectType), inner.name == "JSON"
    )


def _object(fields: Iterable[Field], items: Iterable[Any]) -> _Columns:
    """The columns of these objects."""
    there = [item for item in items if item is not None]
    parts: list[tuple[str | None, _Columns]] = []
    plain: list[str] = []
    for field in fields:
        kind = _kind(field.of, field.name)
        if not any(kind) or field.name == "__typename":
            plain.append(field.key)
            continue
        columns = _member(
            field, kind, [value for item in there if (value := item.get(field.key)) is not None]
        )
        # With @skip nothing may be left of an object.
        if columns.width:
            if plain:
                parts.append((None, _Plain(plain)))
                plain = []
            parts.append((field.key, columns))
    if not parts:
        return _Plain(plain)
    return _Object([*parts, (None, _Plain(plain))] if plain else parts)


def _member(field: Field, kind: _Kind, values: list[Any]) -> _Columns:
    """The columns of a list, an object or a JSON value."""
    if kind.is_json:
        return _Json.of(values, kind.is_list)
    if not kind.is_object:
        return _PlainList(values)
    if not kind.is_list:
        return _object(field.fields, values)
    places: list[list[Any]] = [[]]
    for value in values:
        places += ([] for _ in range(len(value) - len(places)))
        for place, item in zip(places, value, strict=False):
            place.append(item)
    return _List([_object(field.fields, place) for place in places])


def _below(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        # JSON may name half of a character ("\ud800"), which UTF-8 cannot.
        return _SURROGATES.sub("\ufffd", text).encode()
