"""Users of groups of users: how much work an answer is."""

from server.query.people import GROUPS, Circle, PeopleShape
from storage.queries.groups import GroupRow
from storage.queries.users import Person
from tests.support.tables import fields


def test_who_is_in_several_groups_is_made_once_for_each_selection() -> None:
    ann = Person("u", "ann", "ann@a.example", "Ann", 0, False, frozenset())
    groups = [GroupRow(1, "A", key, key, frozenset(), 0) for key in ("g", "h")]
    circle: Circle = {"users": {"g": [ann], "h": [ann]}, "userGroups": {"u": groups}}
    (field,) = fields("{ groups { users { name } others: users { userGroups { name } } } }")
    first, second = PeopleShape(circle).listed(GROUPS, field, groups)
    assert first["users"] == [{"name": "Ann"}]
    assert first["others"] == [{"userGroups": [{"name": "g"}, {"name": "h"}]}]
    for key in ("users", "others"):
        assert first[key][0] is second[key][0]
