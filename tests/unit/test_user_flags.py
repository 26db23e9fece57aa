"""Flags of sections 5.5, 13.4 and 13.9."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.auth.policies import PERMISSIONS
from server.errors import Problem
from server.users.flags import FLAGS, GROUP_FLAGS, changed_permissions, parse_flags, printed_flags

SPELLINGS = [str, str.upper, str.lower, str.title, str.swapcase]

sets = st.frozensets(st.sampled_from(sorted(FLAGS)))
changes = st.dictionaries(st.sampled_from(sorted(FLAGS)), st.booleans())


@st.composite
def sent(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, bool]]:
    """Flags as some client sends them, and what they mean."""
    meant = draw(changes)
    body: dict[str, Any] = {}
    for permission, value in meant.items():
        flag = draw(st.sampled_from(SPELLINGS))(FLAGS[permission])
        body[flag] = draw(st.sampled_from([value, str(value), str(value).lower(), str(value).upper()]))
    return body, meant


@settings(deadline=None)
@given(sent())
def test_a_flag_means_the_same_in_any_case_and_as_a_boolean_or_a_string(
    flags: tuple[dict[str, Any], dict[str, bool]],
) -> None:
    body, meant = flags
    assert parse_flags(body, FLAGS) == meant


@settings(deadline=None)
@given(sets, changes)
def test_flags_that_are_sent_hold_and_the_others_stay(held: frozenset[str], sent: dict[str, bool]) -> None:
    after = changed_permissions(held, sent)
    for permission in FLAGS:
        assert (permission in after) == sent.get(permission, permission in held)
    assert parse_flags(printed_flags(after), FLAGS) == dict.fromkeys(after, True)


@pytest.mark.parametrize("value", [None, 1, 0, "yes", "", " true", "truе", [], {}, 1.0])
def test_what_is_neither_true_nor_false_is_refused(value: Any) -> None:
    with pytest.raises(Problem) as refusal:
        parse_flags({"admin": True, "editor": value}, FLAGS)
    assert (refusal.value.status, refusal.value.field) == (422, "editor")


@pytest.mark.parametrize("body", [{"admin": True, "Admin": False}, {"ADMIN": True, "admin": "true"}])
def test_a_flag_that_comes_twice_is_refused_even_if_both_say_the_same(body: dict[str, Any]) -> None:
    with pytest.raises(Problem) as refusal:
        parse_flags(body, FLAGS)
    assert (refusal.value.status, refusal.value.field) == (422, list(body)[1])


def test_the_flags_are_those_of_the_document_and_owner() -> None:
    assert list(FLAGS.values()) == [
        "owner",
        "admin",
        "editor",
        "approver",
        "modifier",
        "dataViewer",
        "executor",
    ]
    assert set(FLAGS) == PERMISSIONS - {"SPOKE"}
    assert set(GROUP_FLAGS) == set(FLAGS) - {"OWNER"}


@pytest.mark.parametrize("flag", ["owner", "Owner", "OWNER", "spoke"])
def test_no_group_has_the_flag_owner(flag: str) -> None:
    for value in (True, False, "true"):
        with pytest.raises(Problem) as refusal:
            parse_flags({"admin": True, flag: value}, GROUP_FLAGS)
        assert (refusal.value.status, refusal.value.field) == (422, flag)
