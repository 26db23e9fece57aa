"""What may be a body at all: the quick judge agrees with the slow one, and depth is counted exactly."""

import json

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sync.errors import MalformedSnapshot
from sync.snapshot import parse
from sync.values import MAX_DEPTH, TooDeep, check_depth, check_values

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.sampled_from([2**64, 10**40, -(10**25)])
)
documents = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))
wounds = st.tuples(
    st.integers(0, 200),
    st.sampled_from([b"", b"\xff", b"\\ud800", b"1e999", b"]", b'"', b"\x00", b",", b"00"]),
)


def refused(body: bytes) -> bool:
    try:
        check_values(body)
        msgspec.json.decode(body, type=msgspec.Raw)
    except (msgspec.DecodeError, ValueError):
        return True
    return False


@given(documents, st.none() | wounds)
@example("\ud83d\ude00", None)
@example([123456789012345678901234567890], None)
def test_what_cannot_be_decoded_is_refused_and_nothing_else(
    document: object, wound: tuple[int, bytes] | None
) -> None:
    body = json.dumps(document, ensure_ascii=False).encode("utf-8", "surrogatepass")
    if wound is not None:
        place = wound[0] % (len(body) + 1)
        body = body[:place] + wound[1] + body[place:]
    try:
        msgspec.json.decode(body)
        decodes = True
    except (msgspec.DecodeError, ValueError):
        decodes = False
    assert refused(body) != decodes


def nested(levels: int, bracket: str) -> str:
    opening, closing = ("[", "]") if bracket == "[" else ('{"[{":', "}")
    return opening * levels + '"]}{["' + closing * levels


@pytest.mark.parametrize("bracket", ["[", "{"])
@pytest.mark.parametrize("levels", [MAX_DEPTH - 1, MAX_DEPTH, MAX_DEPTH + 1, MAX_DEPTH + 900])
def test_a_value_may_be_nested_a_hundred_levels_deep_whatever_its_texts_hold(
    levels: int, bracket: str
) -> None:
    value = nested(levels, bracket).encode()
    if levels <= MAX_DEPTH:
        check_depth(value, 0)
    else:
        with pytest.raises(TooDeep):
            check_depth(value, 0)


@pytest.mark.parametrize(
    ("body", "above"),
    [
        ('{"metadata":{"clientJobId":"a"},"x":%s}', 1),
        ('{"metadata":{"clientJobId":"a"},"team":%s}', 1),
        ('{"metadata":{"clientJobId":"a","x":%s}}', 2),
        ('{"metadata":{"clientJobId":"a","metadata":{"x":%s}}}', 3),
        ('{"metadata":{"clientJobId":"a","currentStep":{"x":%s}}}', 3),
        ('{"metadata":{"clientJobId":"a"},"completedSteps":[{"x":%s}]}', 3),
        ('{"metadata":{"clientJobId":"a"},"cancelledSteps":[{"x":%s}]}', 3),
        ('{"metadata":{"clientJobId":"a"},"completedSteps":[],"cancelledSteps":null,"sync":{"x":%s}}', 2),
    ],
)
def test_a_body_may_be_nested_a_hundred_levels_deep_wherever(body: str, above: int) -> None:
    parse((body % nested(MAX_DEPTH - above, "[")).encode())
    with pytest.raises(MalformedSnapshot) as refusal:
        parse((body % nested(MAX_DEPTH - above + 1, "[")).encode())
    assert refusal.value.code == "too-deep"
