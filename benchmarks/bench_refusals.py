"""How long it takes to refuse queries that are meant to take long. Each is to be refused, or read, in under 50 ms.

    make bench-refusals
    make bench-refusals ARGS='--rounds 31'

A query is read and its fields are selected, as for a request; nothing is executed, and nothing is remembered of the
last round. Milliseconds of the processor, and of the clock.
"""

import argparse
import gc
import statistics
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from types import MappingProxyType
from typing import Any, NamedTuple

from graphql import get_introspection_query

from benchmarks.harness import HERE, machine
from server.query.documents import MAX_ALIASES, MAX_BYTES, QueryProblem, read
from server.query.selecting import select

Row = dict[str, Any]

#: Milliseconds.
MOST = 50


class Case(NamedTuple):
    """A query, with a name for what is wrong with it."""

    name: str
    query: str
    variables: Mapping[str, Any] = MappingProxyType({})


def main() -> None:
    """Run the benchmark and write its results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15, help="times each query is asked")
    options = parser.parse_args()
    # As the server does when it starts (server/app.py): else most of the worst times are Python's garbage collection.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    rows = [_measured(case, options.rounds) for case in cases()]
    lines = [
        "# Refusals of queries",
        "",
        f"{machine()}; {options.rounds} rounds. Milliseconds to read a query and to select its fields.",
        "",
        "| what | bytes | answer | median, processor | worst, processor | worst, clock |",
        "| --- | --- | --- | --- | --- | --- |",
        *("| " + " | ".join(str(value) for value in row.values()) + " |" for row in rows),
        "",
        f"With a median of more than {MOST} ms: {sum(row['median'] > MOST for row in rows)}.",
    ]
    (HERE / "results").mkdir(exist_ok=True)
    (HERE / "results" / f"{date.today().isoformat()}-refusals.md").write_text(
        "\n".join(lines) + "\n", "utf-8"
    )
    print("\n".join(lines))


def _measured(case: Case, rounds: int) -> Row:
    spent, taken = [], []
    for _ in range(rounds):
        began, used = time.perf_counter(), time.process_time()
        answer = _answer(case)
        spent.append((time.process_time() - used) * 1000)
        taken.append((time.perf_counter() - began) * 1000)
    return {
        "what": case.name,
        "bytes": len(case.query.encode()),
        "answer": answer,
        "median": round(statistics.median(spent), 1),
        "worst": round(max(spent), 1),
        "worst, clock": round(max(taken), 1),
    }


def _answer(case: Case) -> str:
    try:
        # Not the remembered one.
        select(read.__wrapped__(case.query), None, case.variables)
    except QueryProblem as problem:
        return problem.code
    return "read"


def cases() -> Iterator[Case]:
    """Queries that are as large as they may be in one way or another, and some that are larger."""
    yield from _syntax()
    yield from _unknown()
    yield from _fragments()
    yield from _values()
    yield from _large()


def _syntax() -> Iterator[Case]:
    half = MAX_BYTES // 2
    yield Case("32 KB of opening braces", "{" * MAX_BYTES)
    yield Case("32 KB of braces in each other", "{" * half + "}" * half)
    yield Case("1,400 fields in each other", "{a" * 1_400 + "}" * 1_400)
    yield Case("990 inline fragments in each other", "{" + "...{" * 990 + "__typename" + "}" * 991)
    yield Case("1,400 lists in each other", "{ jobs(jobTitle: " + "[" * 1_400 + "]" * 1_400 + ") { jobId } }")
    yield Case(
        "700 objects in each other", "{ jobs(jobTitle: " + "{a:" * 700 + "1" + "}" * 700 + ") { jobId } }"
    )
    yield Case("3,000 names", "{ " + "a " * 2_998 + "}")
    yield Case("10,000 names", "{ " + "a " * 10_000 + "}")
    yield Case("32 KB of commas", "{ jobs { jobId " + "," * (MAX_BYTES - 30) + "} }")
    yield Case("32 KB of comments", "{ jobs { jobId } }" + "#\n" * (half - 10))
    yield Case("a comment of 32 KB", "{ jobs { jobId } } #" + "x" * (MAX_BYTES - 30))
    yield Case("a string that does not end", '{ jobs(jobTitle: "' + "\\u0041" * 5_000)
    yield Case("a block string of 15,000 lines", '{ jobs(jobTitle: """' + " \n" * 15_000 + '""") { jobId } }')
    yield Case("32 KB that begin nothing", "\x00" * MAX_BYTES)


def _unknown() -> Iterator[Case]:
    yield Case("1,900 unknown fields", _jobs(f"jobid{number}" for number in range(1_900)))
    yield Case("1,500 fields that are almost known", _jobs("completedJobCurso" for _ in range(1_500)))
    yield Case("an unknown field of 30 KB", _jobs(["x" * 30_000]))
    yield Case(
        "20 unknown fields of 1.5 KB", _jobs("completedJobCursor" * 80 + str(number) for number in range(20))
    )
    yield Case(
        "700 unknown arguments", f"{{ jobs({_named(f'jobTitel{n}: 1' for n in range(700))}) {{ jobId }} }}"
    )
    yield Case(
        "900 times the same argument", f"{{ jobs({_named('limit: 1' for _ in range(900))}) {{ jobId }} }}"
    )
    yield Case("900 unknown directives", _jobs(f"jobId @skp{number}" for number in range(900)))
    yield Case("400 times the same directive", _jobs(["jobId " + "@skip(if: true) " * 400]))
    yield Case("900 fields that have others, without them", _jobs("steps" for _ in range(900)))
    yield Case("700 fields with others inside that have none", _jobs("jobId { jobId }" for _ in range(700)))
    yield Case(
        "400 unknown types", _named(f"fragment f{n} on Jop{n} {{ a }}" for n in range(400)) + _jobs(["jobId"])
    )


def _fragments() -> Iterator[Case]:
    one = "{ jobs { ...f0 } }"
    yield Case("400 fragments in each other", one + _chain(400, "jobId"))
    yield Case("a circle of 400 fragments", one + _chain(399, "...f0"))
    yield Case("40 fragments that each use the next twice", one + _chain(40, "jobId", "{next} {next}"))
    yield Case("250 fragments of the same field", _jobs(f"...f{n}" for n in range(250)) + _same(250))
    yield Case("1,400 times the same fragment", _jobs("...f0" for _ in range(1_400)) + _chain(1, "jobId"))
    yield Case("700 unknown fragments", _jobs(f"...f{number}" for number in range(700)))
    yield Case("400 fragments that nobody uses", _jobs(["jobId"]) + _chain(400, "jobId"))
    yield Case("30 fragments of 60 fields", _jobs(f"...f{n}" for n in range(30)) + _wide(30, 60))
    yield Case(
        "150 operations of the same 150 fragments",
        _named(f"query q{n} {{ jobs {{ ...f0 }} }}" for n in range(150)) + _chain(150, "jobId"),
    )
    yield Case("330 operations of one name", _named("query q { jobs { jobId } }" for _ in range(330)))


def _values() -> Iterator[Case]:
    yield Case("a text of 31 KB", f'{{ jobs(jobTitle: "{"x" * 31_000}") {{ jobId }} }}')
    yield Case("a number of 31,000 digits", f"{{ jobs(limit: {'9' * 31_000}) {{ jobId }} }}")
    yield Case("an exponent of 31,000 digits", f"{{ jobs(limit: 1e{'9' * 31_000}) {{ jobId }} }}")
    yield Case("2,900 values in a list", f"{{ jobs(jobTitle: [{'1 ' * 2_900}]) {{ jobId }} }}")
    yield Case("2,900 values of no kind", f"{{ jobs(jobTitle: [{'a ' * 2_900}]) {{ jobId }} }}")
    yield Case("700 variables", f"query ({_named(f'$v{n}: Int' for n in range(700))}) {{ jobs {{ jobId }} }}")
    yield Case(
        "700 variables of no type",
        f"query ({_named(f'$v{n}: Itn' for n in range(700))}) {{ jobs {{ jobId }} }}",
    )
    yield Case(
        "1,400 unknown variables",
        f"{{ jobs(jobTitle: [{_named(f'$v{n}' for n in range(1_400))}]) {{ jobId }} }}",
    )
    many = {"titles": [1] * 10_000}
    yield Case(
        "10,000 wrong values", "query ($titles: [String!]) { jobs(jobTitle: $titles) { jobId } }", many
    )


def _large() -> Iterator[Case]:
    steps = [f's{number}: step(search: "a") {{ value }}' for number in range(MAX_ALIASES)]
    yield Case("200 steps", _jobs(steps))
    yield Case("201 aliases", _jobs([*steps, "last: jobId"]))
    yield Case("21 times jobs", "{" + " jobs { jobId }" * 21 + " }")
    yield Case("1,900 times one field", _jobs("jobId" for _ in range(1_900)))
    yield Case(
        "200 times one name, not alike", _jobs(f'a: step(search: "{n}") {{ value }}' for n in range(200))
    )
    deep = "users { userGroups { " * 4 + "users { name }" + " } }" * 4
    yield Case("9 levels of groups and users", f"{{ groups(limit: 1000) {{ {deep} }} }}")
    yield Case("all there is to introspect", get_introspection_query(descriptions=True))
    deepest = "fields { type { " * 300 + "name" + " } }" * 300
    yield Case("600 levels of the schema", f"{{ __schema {{ types {{ {deepest} }} }} }}")
    yield Case(
        "150 levels of the schema in fragments",
        "{ __schema { types { ...f0 } } }"
        + "".join(f"fragment f{n} on __Type {{ fields {{ type {{ ...f{n + 1} }} }} }}" for n in range(150))
        + "fragment f150 on __Type { name }",
    )


def _jobs(selected: Iterable[str]) -> str:
    return f"{{ jobs {{ {_named(selected)} }} }}"


def _named(parts: Iterable[str]) -> str:
    return " ".join(parts)


def _chain(count: int, end: str, each: str = "{next}") -> str:
    """Fragments of which each uses the next one."""
    inner = [each.replace("{next}", f"...f{number + 1}") for number in range(count - 1)]
    return "".join(f" fragment f{number} on Job {{ {body} }}" for number, body in enumerate([*inner, end]))


def _same(count: int) -> str:
    return "".join(f" fragment f{number} on Job {{ steps {{ stepId }} }}" for number in range(count))


def _wide(count: int, fields: int) -> str:
    body = " ".join("jobId" for _ in range(fields))
    return "".join(f" fragment f{number} on Job {{ {body} }}" for number in range(count))


if __name__ == "__main__":
    main()
