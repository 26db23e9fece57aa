"""What a request does not say of a report template stays as it is."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.errors import Problem
from server.report_templates.shapes import MAX_METADATA, AskedOptions, with_metadata
from server.reports.loading import Options

_keys = st.sampled_from(["a", "b", "c", "ä"])
_values = st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3) | st.just({"b": [1, None]})
_objects = st.dictionaries(_keys, _values, max_size=4)


@given(_objects, _objects)
def test_metadata_that_are_not_named_stay_and_a_null_takes_one_away(
    below: dict[str, Any], asked: dict[str, Any]
) -> None:
    merged = json.loads(with_metadata(below, asked))
    expected = {**below, **asked}
    assert merged == {key: value for key, value in expected.items() if value is not None}
    assert json.loads(with_metadata(merged, asked)) == merged


def test_metadata_have_20_kb_together_as_json() -> None:
    room = MAX_METADATA - len('{"a":""}')
    assert len(with_metadata({}, {"a": "x" * room})) == MAX_METADATA
    with pytest.raises(Problem):
        with_metadata({"a": "x" * room}, {"b": 1})
    assert with_metadata({"a": "x" * room}, {"a": None}) == b"{}"


@given(
    st.sampled_from([None, True, False, "true", "False"]),
    st.none() | st.text("ab ", max_size=3),
    st.none() | st.integers(0, 400),
)
def test_options_that_are_not_sent_stay(landscape: Any, title: str | None, height: int | None) -> None:
    result = AskedOptions(landscape, title, height).over(Options(True, "T", 7, True))
    assert result.is_landscape is (landscape in (None, True, "true"))
    assert result.title == ((title or "").strip() or "T")
    assert result.header_height == (7 if height is None else height)
    assert result.hide_footer is True
