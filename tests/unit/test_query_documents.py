"""What a query may be: its limits are kept before anything takes long, and nothing it says is repeated."""

import pytest

from server.query.documents import MAX_BYTES, QueryProblem, read
from server.query.selecting import MAX_COST, Field, select


def refused(text: str) -> QueryProblem:
    with pytest.raises(QueryProblem) as caught:
        read(text)
    return caught.value


def fields(text: str, operation_name: str | None = None, **variables: object) -> tuple[Field, ...]:
    return select(read(text), operation_name, variables)


def test_a_query_has_at_most_32_kb() -> None:
    assert refused("{ jobs { jobId } } #" + "x" * MAX_BYTES).code == "query-too-large"
    assert read("{ jobs { jobId } } #" + "x" * 30_000)


@pytest.mark.parametrize(
    "text", ["{ jobs {", "", "query }", '{ jobs(limit: "secret-word) { jobId } }', "{ ünïcode }"]
)
def test_a_syntax_error_says_where_it_is_and_repeats_nothing(text: str) -> None:
    problem = refused(text)
    assert problem.code == "query-syntax"
    (error,) = problem.errors
    assert error["locations"][0].keys() == {"line", "column"}
    assert "secret" not in str(problem.errors)


@pytest.mark.parametrize(
    "text",
    [
        "{ jobs { jobId } } " + "fragment F on Job { jobId }" * 700,
        "{ jobs { " + "jobId " * 3_000 + "} }",
        "{ jobs " * 1_000,
        "{ users { " + "userGroups { users { " * 5 + "name" + " } }" * 5 + " } }",
        "{ jobs { " + " ".join(f"a{n}: jobId" for n in range(201)) + " } }",
        "{ " + " ".join(f"a{n}: jobs {{ jobId }}" for n in range(21)) + " }",
        "#\n" * 3_500 + "{ jobs { jobId } }",
        # Each fragment twice the one before: 2^40 fields.
        "{ jobs { ...F0 } } fragment F40 on Job { jobId } "
        + " ".join(f"fragment F{n} on Job {{ ...F{n + 1} ...F{n + 1} }}" for n in range(40)),
        # The uses count, also of what is not there.
        "{ ...F0 } " + " ".join(f"fragment F{n} on Query {{ ...F{n + 1} ...F{n + 1} }}" for n in range(30)),
        # Each operation goes through every fragment.
        " ".join(f"query q{n} {{ jobs {{ ...F0 }} }}" for n in range(100))
        + " ".join(f" fragment F{n} on Job {{ ...F{n + 1} }}" for n in range(99))
        + " fragment F99 on Job { jobId }",
    ],
    ids=[
        *("tokens", "fields", "brackets", "depth", "aliases", "roots", "comments", "fragments"),
        *("uses of fragments", "operations"),
    ],
)
def test_what_is_too_complex_is_refused(text: str) -> None:
    assert refused(text).code == "query-too-complex"


@pytest.mark.parametrize(
    "text",
    [
        "{ jobs { ...A } } fragment A on Job { ...B } fragment B on Job { ...A }",
        "{ ...A } fragment A on Query { ...A }",
        "mutation { jobs { jobId } }",
        "subscription { jobs { jobId } }",
        "fragment A on Job { jobId }",
        "{ jobs { nothing } }",
        "{ jobs { } }",
        "{ jobs }",
        '{ jobs(limit: "many") { jobId } }',
        "{ ...Nobody }",
        "query ($limit: Int) { jobs { jobId } }",
        "{ jobs(limit: $limit) { jobId } }",
        "query ($limit: String) { jobs(limit: $limit) { jobId } }",
    ],
)
def test_what_the_schema_does_not_know_is_refused(text: str) -> None:
    assert refused(text).code == "query-invalid"


def test_a_field_that_is_almost_known_is_told_by_its_name() -> None:
    (error,) = refused("{ jobs { jobTitel } }").errors
    assert "Did you mean 'jobTitle'" in error["message"]
    assert error["locations"] == [{"line": 1, "column": 10}]


def test_of_very_much_that_is_wrong_some_is_told() -> None:
    problem = refused("{ jobs { " + " ".join(f"jobId{n}" for n in range(1_900)) + " } }")
    assert problem.code == "query-invalid"
    assert len(problem.errors) == 21


def test_introspection_may_be_deep() -> None:
    read(
        "{ __schema { types { fields { type { ofType { ofType { ofType { ofType { ofType { ofType { name }}}}}}}}}}}"
    )


def test_200_named_steps_may_be_asked_for() -> None:
    read("{ jobs { " + " ".join(f's{n}: step(search: "x") {{ value }}' for n in range(200)) + " } }")


def test_the_cost_is_that_of_the_objects_that_may_be_touched() -> None:
    every = "steps { substeps { attachments { thumbnails { name } } } }"
    assert fields(f"{{ jobs(limit: 100) {{ {every} }} }}")
    with pytest.raises(QueryProblem) as caught:
        fields("{ " + " ".join(f"a{n}: jobs(limit: 100) {{ {every} }}" for n in range(10)) + " }")
    assert caught.value.code == "query-too-complex"
    assert f"{MAX_COST:,}" in str(caught.value)


def test_fields_are_merged_and_directives_and_variables_are_followed() -> None:
    text = """
    query Q($with: Boolean = false, $limit: Int) {
      jobs(limit: $limit) { jobId ...F steps { stepId } metadata @include(if: $with) { name } }
      jobs(limit: $limit) { steps { note } title: jobTitle @skip(if: $with) }
    }
    fragment F on Job { steps { stepTitle } ... on Job { status } }
    """
    (jobs,) = fields(text, None, limit=3)
    assert jobs.arguments["limit"] == 3
    assert [field.key for field in jobs.fields] == ["jobId", "steps", "status", "title"]
    assert [field.name for field in jobs.fields[1].fields] == ["stepTitle", "stepId", "note"]
    (jobs,) = fields(text, "Q", **{"with": True})
    assert [field.key for field in jobs.fields] == ["jobId", "steps", "status", "metadata"]
    assert jobs.arguments["limit"] == 50


@pytest.mark.parametrize(
    "text",
    [
        "{ jobs { a: jobId a: status } }",
        "{ jobs(limit: 1) { jobId } jobs(limit: 2) { status } }",
        '{ jobs { ...A s: step(search: "b") { note } } } fragment A on Job { s: step(search: "a") { note } }',
        "{ jobs { steps { a: note } } jobs { steps { a: value } } }",
    ],
)
def test_different_fields_of_one_name_are_refused(text: str) -> None:
    with pytest.raises(QueryProblem) as caught:
        fields(text)
    assert caught.value.code == "query-invalid"


def test_an_operation_is_named_where_there_are_several() -> None:
    text = "query A { users { name } } query B { groups { name } }"
    assert [field.name for field in fields(text, "B")] == ["groups"]
    for name in (None, "C"):
        with pytest.raises(QueryProblem) as caught:
            fields(text, name)
        assert caught.value.code in ("operation-name-missing", "unknown-operation")


def test_variables_of_the_wrong_type_are_refused() -> None:
    with pytest.raises(QueryProblem) as caught:
        fields("query ($limit: Int) { jobs(limit: $limit) { jobId } }", None, limit="many")
    assert caught.value.code == "invalid-variables"
