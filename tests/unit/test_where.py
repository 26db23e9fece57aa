"""Conditions as they stand in an address: what they are split into, and that it takes no time to do so."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.collections import where
from server.collections.where import conditions, split
from server.errors import Problem
from storage.records import Column, Condition

_OPERATORS = (">=", "<=", "!=", "^=", "=", "<", ">")


@contextmanager
def processor_seconds(most: float) -> Iterator[None]:
    """End what computes for longer, however long it waits for its turn."""

    def over(*_: object) -> None:
        raise AssertionError(f"it computes for more than {most} seconds")

    before = signal.signal(signal.SIGVTALRM, over)
    signal.setitimer(signal.ITIMER_VIRTUAL, most)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def _plainly(text: str) -> tuple[str, str, str] | None:
    """The same by trying every place at which an operator could stand, the first one first."""
    for start in range(len(text)):
        for operator in _OPERATORS:
            if not text.startswith(operator, start):
                continue
            name = text[:start].strip()
            if not any(character in name for character in '"=<>'):
                return name, operator, text[start + len(operator) :]
            inner = name[1:-1].replace('""', "")
            if len(name) > 1 and name[0] == name[-1] == '"' and '"' not in inner:
                return name[1:-1].replace('""', '"').strip(), operator, text[start + len(operator) :]
    return None


@settings(deadline=None, max_examples=1000)
@given(st.text(st.sampled_from('ab "=<>!^\t\n\x1f\u3000'), max_size=14))
def test_a_condition_is_split_as_if_every_place_were_tried(text: str) -> None:
    assert split(text) == _plainly(text)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("Price>=12.5", ("Price", ">=", "12.5")),
        (' "a=b" = 5', ("a=b", "=", " 5")),
        ('"say ""x"""=1', ('say "x"', "=", "1")),
        ("a!b^=c=d", ("a!b", "^=", "c=d")),
        ("=5", ("", "=", "5")),
        ('a"b=5', None),
        ('"a=5', None),
        ('"a"b=5', None),
        ("Price", None),
        ("", None),
    ],
)
def test_a_condition_is_name_operator_and_value(text: str, parts: tuple[str, str, str] | None) -> None:
    assert split(text) == parts


@pytest.mark.parametrize(
    "text", [" " * 3_999 + "x", "a" + " " * 3_998 + "x", '"' + '""' * 1_999, '"a"' + " " * 3_990 + "x"]
)
def test_no_condition_takes_long_to_refuse(text: str) -> None:
    with processor_seconds(10), pytest.raises(Problem) as refusal:
        conditions([text], [Column("x", "text")])
    assert refusal.value.code == "invalid-where"


def test_a_condition_has_a_longest_length() -> None:
    columns = [Column("x", "text")]
    longest = "x=" + "y" * (where.MAX_LENGTH - 2)
    assert conditions([longest], columns) == [Condition(0, "=", longest[2:])]
    with pytest.raises(Problem) as refusal:
        conditions([f"{longest}y"], columns)
    assert (refusal.value.status, refusal.value.code, refusal.value.field) == (422, "invalid-where", "where")
