"""Answers as CSV: which columns, in which order, and that a reader finds in them what was answered."""

import re
import unicodedata
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from graphql import GraphQLObjectType, get_named_type, get_nullable_type, is_list_type
from hypothesis import given
from hypothesis import strategies as st

from server.query.documents import SCHEMA
from server.query.flat import csv_lines
from server.query.selecting import Field
from tests.support.tables import BOM, fields, json_values, parsed, table

_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


# Columns


def test_each_item_is_a_row_and_what_lies_in_it_is_named_by_the_way_to_it() -> None:
    query = """{ jobs {
        jobId
        workflowTags
        metadata { name value }
        componentCodeStep: step(search: "componentcode") { value }
        steps { stepTitle }
        attachments { fileName thumbnails { width } }
    } }"""
    job = {
        "jobId": "j1",
        "workflowTags": ["pump", "hall 3"],
        "metadata": [{"name": "Plant", "value": 7}],
        "componentCodeStep": {"value": "MC003"},
        "steps": [{"stepTitle": "Photo"}, {"stepTitle": "Sign"}],
        "attachments": [
            {"fileName": "a.jpg", "thumbnails": [{"width": 90}, {"width": 256}]},
            {"fileName": "b.jpg", "thumbnails": []},
        ],
    }
    header, first, second = table(query, {"jobs": [job, {**dict.fromkeys(job), "jobId": "j2"}]})
    assert dict(zip(header, first, strict=True)) == {
        "jobId": "j1",
        "workflowTags.0": "pump",
        "workflowTags.1": "hall 3",
        "metadata.0.name": "Plant",
        "metadata.0.value": "7",
        "componentCodeStep.value": "MC003",
        "steps.0.stepTitle": "Photo",
        "steps.1.stepTitle": "Sign",
        "attachments.0.fileName": "a.jpg",
        "attachments.0.thumbnails.0.width": "90",
        "attachments.0.thumbnails.1.width": "256",
        "attachments.1.fileName": "b.jpg",
        "attachments.1.thumbnails.0.width": "",
    }
    assert second == ["j2", *[""] * 12]


def test_the_inspections_of_section_3_6_1_have_a_column_for_each_step_that_is_named() -> None:
    query = """{ jobs(workflowTitle: "Component Inspection & Maintenance" limit: 50 order: "desc") {
        jobId jobTitle created totalDuration geoLongAverage geoLatAverage
        componentCodeStep: step(search: "componentcode") { value }
        conditionBeforeStep: step(search: "bd9a9c4a") { substeps { stepTitle value } }
        runningTemperatureBeforeStep: step(search: "beforemaintenancerunningtemperature") { value }
        maintenanceStep: step(search: "ComponentMaintenance") { activeDuration }
    } }"""
    substeps = [
        {"stepTitle": "Record Condition", "value": ""},
        {"stepTitle": "Component Condition - Description", "value": "fine"},
    ]
    job = {
        "jobId": "5eed0166d13d5e0001d9b66c",
        "jobTitle": "Component Inspection & Maintenance",
        "created": "2020-06-19T18:18:14.496Z",
        "totalDuration": 68,
        "geoLongAverage": -1.2109178,
        "geoLatAverage": 52.9210939,
        "componentCodeStep": {"value": "MC003"},
        "conditionBeforeStep": {"substeps": substeps},
        "runningTemperatureBeforeStep": {"value": "28"},
        "maintenanceStep": None,
    }
    content = b"".join(csv_lines(fields(query), {"jobs": [job]}))
    assert content.decode("utf-8-sig") == (
        "jobId,jobTitle,created,totalDuration,geoLongAverage,geoLatAverage,componentCodeStep.value,"
        "conditionBeforeStep.substeps.0.stepTitle,conditionBeforeStep.substeps.0.value,"
        "conditionBeforeStep.substeps.1.stepTitle,conditionBeforeStep.substeps.1.value,"
        "runningTemperatureBeforeStep.value,maintenanceStep.activeDuration\r\n"
        "5eed0166d13d5e0001d9b66c,Component Inspection & Maintenance,2020-06-19T18:18:14.496Z,68,-1.2109178,52.9210939,"
        "MC003,Record Condition,,Component Condition - Description,fine,28,\r\n"
    )


def test_the_substeps_of_section_3_5_3_3_widen_only_the_step_they_belong_to() -> None:
    steps = [{"substeps": None}, {"substeps": [{"value": "a"}, {"value": "b"}]}, {"substeps": []}]
    header, row = table("{ jobs { steps { substeps { value } } } }", {"jobs": [{"steps": steps}]})
    assert header == [
        "steps.0.substeps.0.value",
        "steps.1.substeps.0.value",
        "steps.1.substeps.1.value",
        "steps.2.substeps.0.value",
    ]
    assert row == ["", "a", "b", ""]


@pytest.mark.parametrize("jobs", [None, [], "nothing of each"])
def test_columns_that_were_selected_stay_when_nothing_is_there(jobs: Any) -> None:
    query = """{ jobs { jobId workflowTags metadata { name value } step(search: "a") { values }
        attachments { fileName thumbnails { width } } } }"""
    if jobs:
        keys = ("jobId", "workflowTags", "metadata", "step", "attachments")
        jobs = [dict.fromkeys(keys)]
    header = table(query, {"jobs": jobs})[0]
    assert header == [
        "jobId",
        "workflowTags.0",
        "metadata.0.name",
        "metadata.0.value",
        "step.values.0",
        "attachments.0.fileName",
        "attachments.0.thumbnails.0.width",
    ]


def test_columns_stand_in_the_order_of_selection_whatever_the_order_of_the_data() -> None:
    query = "{ jobs { updated steps { value stepTitle } jobId } }"
    job = {"jobId": "j", "steps": [{"stepTitle": "t", "value": "v"}], "updated": "u"}
    assert table(query, {"jobs": [job]}) == [
        ["updated", "steps.0.value", "steps.0.stepTitle", "jobId"],
        ["u", "v", "t", "j"],
    ]


def test_ten_places_of_a_list_are_counted_as_numbers() -> None:
    steps = [{"value": str(n)} for n in range(12)]
    header, row = table("{ jobs { steps { value } } }", {"jobs": [{"steps": steps}]})
    assert header == [f"steps.{n}.value" for n in range(12)]
    assert row == [str(n) for n in range(12)]


def test_with_several_root_fields_the_rows_follow_each_other_and_columns_say_whose_they_are() -> None:
    query = "{ open: jobs { jobId created } users { name } done: jobs { jobId } }"
    data = {"open": [{"jobId": "1", "created": "c"}], "users": None, "done": [{"jobId": "2"}, {"jobId": "3"}]}
    assert table(query, data) == [
        ["open.jobId", "open.created", "users.name", "done.jobId"],
        ["1", "c", "", ""],
        ["", "", "", "2"],
        ["", "", "", "3"],
    ]


def test_a_query_that_was_refused_is_an_empty_table() -> None:
    assert b"".join(csv_lines((), {})) == BOM + b"\r\n"


def test_an_object_of_which_everything_was_skipped_has_no_columns() -> None:
    query = '{ jobs { jobId step(search: "a") { value @skip(if: true) } steps { value @skip(if: true) } } }'
    assert table(query, {"jobs": [{"jobId": "j", "step": {}, "steps": [{}, {}]}]}) == [["jobId"], ["j"]]
    nothing = "{ jobs { jobId @skip(if: true) } }"
    assert b"".join(csv_lines(fields(nothing), {"jobs": [{}]})) == BOM + b"\r\n"


def test_names_of_types_and_the_schema_can_be_asked_for() -> None:
    assert table("{ __typename }", {"__typename": "Query"}) == [["__typename"], ["Query"]]
    query = "{ jobs { __typename steps { __typename } } }"
    assert table(query, {"jobs": [{"__typename": "Job", "steps": [{"__typename": "Step"}]}]}) == [
        ["__typename", "steps.0.__typename"],
        ["Job", "Step"],
    ]
    described = {"__schema": {"types": [{"name": "Job"}]}}
    assert table("{ __schema { types { name } } }", described) == [
        ["__schema", "__schema.types.0.name"],
        ["", "Job"],
    ]


# JSON values


def test_json_lists_and_objects_become_columns_beside_the_one_of_single_values() -> None:
    assert json_values("x", ["a", True], {"lat": 1.5, "at": {"z": 0}}, {"lon": None, "lat": 2}) == [
        ["value", "value.0", "value.1", "value.lat", "value.at.z", "value.lon"],
        ["x", "", "", "", "", ""],
        ["", "a", "true", "", "", ""],
        ["", "", "", "1.5", "0", ""],
        ["", "", "", "2", "", ""],
    ]


def test_members_of_an_object_keep_their_columns_in_whatever_order_a_row_has_them() -> None:
    assert json_values({"a": 1, "b": 2, "c": 3}, {"c": 6, "a": 4}) == [
        ["value", "value.a", "value.b", "value.c"],
        ["", "1", "2", "3"],
        ["", "4", "", "6"],
    ]


def test_the_records_of_a_collection_are_columns_by_the_names_of_its_header() -> None:
    records = [{"Serial": "A-1", "Übergabe, am": "2026-11-22"}, {"Serial": "A-2", "Übergabe, am": ""}]
    header, row = table(
        "{ collections { name records } }", {"collections": [{"name": "c", "records": records}]}
    )
    assert header == [
        "name",
        "records.0",
        "records.0.Serial",
        "records.0.Übergabe, am",
        "records.1.Serial",
        "records.1.Übergabe, am",
    ]
    assert row == ["c", "", "A-1", "2026-11-22", "A-2", ""]


def test_no_two_columns_are_called_alike() -> None:
    value = {"a.b": 1, "a": {"b": 2}, "a.b (2)": 3, "0": 4}
    header, first, second = json_values(value, [5])
    assert header == [
        "value",
        "value.0",
        "value.a.b",
        "value.a.b (2)",
        "value.a.b (2) (2)",
        "value.0 (2)",
    ]
    assert first == ["", "", "1", "2", "3", "4"]
    assert second == ["", "5", "", "", "", ""]


def test_what_lies_deep_in_a_json_value_is_one_cell() -> None:
    value: Any = ["x", 1.5]
    for _ in range(80):
        value = [value]
    header, row = json_values(value)
    assert header == ["value", "value.0.0.0.0.0"]
    assert row[0] == ""
    assert msgspec.json.decode(row[1]) == value[0][0][0][0][0]


def test_long_names_are_cut_in_the_header() -> None:
    value = {"n" * 100_000: dict.fromkeys(map(str, range(100)), 1), "n" * 99_999: 2}
    header, row = json_values(value)
    assert len(",".join(header)) < 20_000
    assert len(set(header)) == len(header) == 102
    assert row == ["", *["1"] * 100, "2"]


def test_members_that_only_one_row_has_do_not_make_the_others_long() -> None:
    values = [{f"m{row}-{n}": n for n in range(500)} for row in range(40)]
    content = b"".join(
        csv_lines(
            fields("{ jobs { metadata { value } } }"),
            {"jobs": [{"metadata": [{"value": v}]} for v in values]},
        )
    )
    header, *rows = parsed(content)
    assert len(header) == 1 + 40 * 500
    for number, row in enumerate(rows):
        assert row[1 + number * 500 : 1 + (number + 1) * 500] == [str(n) for n in range(500)]
        assert sum(map(bool, row)) == 500


# Whatever the data

_QUERIES = [
    "{ jobs { jobId } }",
    "{ jobs { jobId totalDuration geoLatAverage excluded workflowTags } }",
    "{ jobs { metadata { name value } } }",
    "{ jobs { steps { value stepTitle substeps { values } attachments { fileName } note } jobTitle } }",
    '{ jobs { a: step(search: "a") { value substeps { value } } b: step(search: "b") { __typename } } }',
    "{ jobs { attachments { thumbnails { width height } fileSize } reports { templateName } } }",
    "{ open: jobs { jobId steps { value } } users { userGroups { name permissions } } collections { records } }",
]
_TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=())),
    st.text("=+-@|%＝＋－＠'\" \t\r\n\u200b\ufeff,;1.5eEx", max_size=8),
)
_NAMES = st.text(st.characters(exclude_characters=".0123456789("), max_size=3)
_NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
_SINGLE = st.none() | st.booleans() | _NUMBERS | _TEXTS
_VALUES = st.recursive(
    _SINGLE,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=3),
    max_leaves=6,
).filter(lambda value: depth(value) < 5)


def is_list(field: Field) -> bool:
    return not field.name.startswith("__") and is_list_type(get_nullable_type(declared(field)))


def is_json(field: Field) -> bool:
    return not field.name.startswith("__") and get_named_type(declared(field)).name == "JSON"


def declared(field: Field) -> Any:
    owner = SCHEMA.type_map[field.of]
    assert isinstance(owner, GraphQLObjectType)
    return owner.fields[field.name].type


def answers(selected: tuple[Field, ...]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({field.key: answer(field) for field in selected})


def answer(field: Field) -> st.SearchStrategy[Any]:
    single = answers(field.fields) if field.fields else _VALUES if is_json(field) else _SINGLE
    return st.none() | (st.lists(single, max_size=3) if is_list(field) else single)


Found = tuple[tuple[Any, ...], str, Any]


class Oracle:
    """The cells of a row, each with where it stands among the others, found value by value."""

    def __init__(self) -> None:
        #: Nulls and empty things within JSON: columns if nothing else is there.
        self.empty: dict[tuple[Any, ...], str] = {}
        self._appeared: dict[tuple[Any, ...], dict[str, int]] = {}

    def of_object(
        self, place: tuple[Any, ...], path: str, among: tuple[Field, ...], value: Any
    ) -> Iterator[Found]:
        for number, field in enumerate(among):
            inner = None if value is None else value[field.key]
            yield from self.of_field((*place, number), f"{path}.{field.key}".lstrip("."), field, inner)

    def of_field(self, place: tuple[Any, ...], path: str, field: Field, value: Any) -> Iterator[Found]:
        if not is_list(field):
            yield from self.of_item(place, path, field, value)
            return
        for index, item in enumerate(value or [None]):
            inner = (*place, 1, index) if is_json(field) else (*place, index)
            yield from self.of_item(inner, f"{path}.{index}", field, item)

    def of_item(self, place: tuple[Any, ...], path: str, field: Field, value: Any) -> Iterator[Found]:
        if field.fields:
            yield from self.of_object(place, path, field.fields, value)
        elif is_json(field):
            if not is_list(field) or path.endswith(".0"):
                yield (*place, 0), path, None  # always there
            yield from self.of_json(place, path, value)
        else:
            yield place, path, value

    def of_json(self, place: tuple[Any, ...], path: str, value: Any) -> Iterator[Found]:
        if value in (None, [], {}):
            self.empty[place] = path
        elif isinstance(value, list):
            for index, item in enumerate(value):
                yield from self.of_json((*place, 1, index), f"{path}.{index}", item)
        elif isinstance(value, dict):
            appeared = self._appeared.setdefault(place, {})
            for name, item in value.items():
                number = appeared.setdefault(name, len(appeared))
                yield from self.of_json((*place, 2, number), f"{path}.{name}", item)
        else:
            yield (*place, 0), path, value

    def columns_of_nothing(self, columns: dict[tuple[Any, ...], str]) -> dict[tuple[Any, ...], str]:
        """The columns of what is null or empty in every row."""
        others = [*columns, *self.empty]
        return {
            (*place, 0): path
            for place, path in self.empty.items()
            if not any(other[: len(place)] == place != other for other in others)
        }


def written(value: Any) -> str:
    """What stands in the cell."""
    if value is None or isinstance(value, bool):
        return {None: "", True: "true", False: "false"}[value]
    if not isinstance(value, str):
        return str(value) if isinstance(value, int) else msgspec.json.encode(value).decode()
    told = re.sub("[\ud800-\udfff]", "\ufffd", value)
    visible = [sign for sign in value if unicodedata.category(sign)[0] not in "CZM" and sign not in "ᅟᅠ⠀ㅤﾠ"]
    begins = unicodedata.normalize("NFKC", visible[0])[0] if visible else ""
    return f"'{told}" if begins and begins in "=+-@|%\u2212" and not _NUMBER.fullmatch(value) else told


def depth(value: Any) -> int:
    inner = value if isinstance(value, list) else value.values() if isinstance(value, dict) else None
    return 0 if inner is None else 1 + max(map(depth, inner), default=0)


@given(st.data())
def test_a_reader_finds_every_value_under_its_name_and_nothing_else(data: st.DataObject) -> None:
    selected = fields(data.draw(st.sampled_from(_QUERIES)))
    given_data = data.draw(answers(selected))
    content = b"".join(csv_lines(selected, given_data))
    header, *rows = parsed(content)

    oracle = Oracle()
    columns: dict[tuple[Any, ...], str] = {}
    expected: list[dict[str, str]] = []
    for number, root in enumerate(selected):
        path = root.key if len(selected) > 1 else ""
        columns |= {place: name for place, name, _ in oracle.of_object((number,), path, root.fields, None)}
        for item in given_data[root.key] or []:
            found = list(oracle.of_object((number,), path, root.fields, item))
            columns |= {place: name for place, name, _ in found}
            expected.append({name: written(value) for _, name, value in found if written(value)})

    columns |= oracle.columns_of_nothing(columns)
    assert header == [columns[place] for place in sorted(columns)]
    assert all(len(row) == len(header) for row in rows)
    assert [dict(filter(lambda pair: pair[1], zip(header, row, strict=True))) for row in rows] == expected


@given(st.lists(st.tuples(_TEXTS, _SINGLE), min_size=1))
def test_no_cell_begins_a_formula_unless_it_is_a_number(values: list[tuple[Any, Any]]) -> None:
    jobs = [{"jobTitle": text, "metadata": [{"value": value}]} for text, value in values]
    for row in table("{ jobs { jobTitle metadata { value } } }", {"jobs": jobs}):
        for text in row:
            if text.lstrip()[:1] in tuple("=+-@|%＝＋－＠｜％"):
                assert _NUMBER.fullmatch(text), text


@given(st.data())
def test_the_columns_of_an_answer_are_those_of_its_rows_in_one_order(data: st.DataObject) -> None:
    """Without JSON values, more rows add columns, and never change the order of those that were there."""
    selected = fields(data.draw(st.sampled_from([_QUERIES[1], _QUERIES[4], _QUERIES[5]])))
    given_data = data.draw(answers(selected))
    items = given_data["jobs"] or []
    header = parsed(b"".join(csv_lines(selected, given_data)))[0]
    before = parsed(b"".join(csv_lines(selected, {"jobs": items[:1]})))[0]
    assert [name for name in header if name in before] == before
