"""Templates of reports: what they say of values, and where they are wrong. Nothing is printed here."""

import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from media.pdf import Template, TemplateProblem, check_template, clean
from media.report_text import MAX_HTML, Log, Refused, fill

ROOT = Path(__file__).resolve().parents[2]


def filled(source: str, **context: object) -> str:
    return fill(source, "bodyContent", context, Log())


def notes(source: str, **context: object) -> tuple[str, ...]:
    log = Log()
    fill(source, "bodyContent", context, log)
    return log.notes


def problem(source: str, **context: object) -> TemplateProblem:
    with pytest.raises(TemplateProblem) as raised:
        filled(source, **context)
    return raised.value


# Values


def test_what_people_typed_is_escaped() -> None:
    assert filled("{{ name }}", name="<b>&") == "&lt;b&gt;&amp;"


def test_half_a_letter_does_not_end_a_report() -> None:
    assert filled("{{ cut }}", cut="a\ud83d") == "a?"


def test_null_and_names_without_a_value_print_nothing() -> None:
    assert filled("[{{ none }}{{ missing }}{{ job.a.b[3].c }}]", none=None, job={}) == "[]"
    assert filled("{% for each in missing %}x{% else %}none{% endfor %}") == "none"


def test_names_without_a_value_are_noted_once_and_those_with_a_default_are_not() -> None:
    assert notes("{{ a }}{{ a }}{{ job.b.c }}{{ d | default('x') }}{% if e %}{% endif %}", job={}) == (
        "undefined: a",
        "undefined: b.c",
    )


def test_at_most_fifty_notes_of_two_hundred_characters_are_kept() -> None:
    log = Log()
    for number in range(80):
        log.note(f"{number}" + "x" * 300)
    assert len(log.notes) == 50
    assert {len(note) for note in log.notes} == {200}


@pytest.mark.parametrize(
    ("expression", "printed"),
    [
        ("'2026-07-01T22:30:00Z' | date", "2026-07-02"),
        ("'2026-07-01T22:30:00Z' | time", "00:30"),
        ("'2026-07-01T22:30:00.123456Z' | datetime", "2026-07-02 00:30"),
        ("'2026-07-01T22:30:00Z' | datetime('Asia/Tokyo')", "2026-07-02 07:30"),
        ("'2026-07-01T22:30:00-05:00' | date('UTC', '%d.%m.%Y')", "02.07.2026"),
        ("'2026-07-01' | date('Asia/Tokyo')", "2026-07-01"),
        ("'2026-07-01T22:30:00Z' | datetime('No/Where')", "2026-07-01 22:30"),
        ("'2026-07-01T22:30:00Z' | datetime('../../etc/passwd')", "2026-07-01 22:30"),
        ("'0001-01-01T00:00:00+14:00' | datetime('UTC')", "0001-01-01T00:00:00+14:00"),
        ("'0001-01-01T00:00:00+14:00' | date", "0001-01-01T00:00:00+14:00"),
        ("'9999-12-31T23:59:59-12:00' | time", "9999-12-31T23:59:59-12:00"),
        ("'9999-12-31T23:59:59-12:00' | datetime('Pacific/Kiritimati')", "9999-12-31T23:59:59-12:00"),
        ("'2026-07-01T22:30:00Z' | date('UTC', '\\ud800')", "2026-07-01T22:30:00Z"),
        ("'soon' | date", "soon"),
        ("none | date", ""),
        ("45 | duration", "45 s"),
        ("720 | duration", "12 min"),
        ("3725 | duration", "1 h 02 min"),
        ("-3725 | duration", "-1 h 02 min"),
        ("1000000 | duration", "11 d 13 h"),
        ("none | duration", ""),
        ("1234567 | number", "1,234,567"),
        ("12345.678 | number(1)", "12,345.7"),
        ("'12345.678' | number(2, ',', ' ')", "12 345,68"),
        ("'n/a' | number(2)", "n/a"),
        ("[47.376888, -8.541694] | coordinates", "47.37689° N, 8.54169° W"),
        ("{'latitude': -1, 'longitude': 2} | coordinates(1)", "1.0° S, 2.0° E"),
        ("none | coordinates", ""),
        (
            "[47.5, -8.25] | map_link",
            "https://www.openstreetmap.org/?mlat=47.500000&amp;mlon=-8.250000#map=17/47.500000/-8.250000",
        ),
        ("none | map_link", "#"),
        ("'a\\n<b>\\r\\nc' | lines", "a<br>&lt;b&gt;<br>c"),
    ],
)
def test_filters_say_values_as_people_do(expression: str, printed: str) -> None:
    assert filled(f"{{{{ {expression} }}}}", team={"timeZone": "Europe/Warsaw"}) == printed


def test_every_filter_leaves_a_missing_value_missing() -> None:
    for name in ("date", "time", "datetime", "duration", "number", "coordinates", "lines"):
        assert notes(f"{{{{ nothing | {name} }}}}") == ("undefined: nothing",)


@pytest.mark.parametrize("half", ["\\ud800", "\\x00"])
def test_notes_hold_nothing_that_cannot_be_stored(half: str) -> None:
    for note in notes(f'{{{{ nope["{half}"] }}}}{{{{ job.nope.a["{half}b"] }}}}', job={}):
        assert note == clean(note)
        assert note.startswith("undefined: nope.")


@pytest.mark.parametrize("half", ["\\ud800", "\\x00"])
@pytest.mark.parametrize("source", ['{{ joiner(**{"HALF": 1}) }}', '{{ "a".split(**{"HALFx": 1}) }}'])
def test_problems_hold_nothing_that_cannot_be_stored(source: str, half: str) -> None:
    detail = problem(source.replace("HALF", half)).detail
    assert detail == clean(detail)
    assert "keyword" in detail


def test_what_is_cleaned_says_where_something_was() -> None:
    assert clean("a\ud800b\0c zażółć 👷") == "a?b\ufffdc zażółć 👷"


# Where templates are wrong


@pytest.mark.parametrize(
    ("source", "line", "column", "detail"),
    [
        ("a\n{{ job.title | nope }}", 2, 16, "no filter named 'nope'"),
        ("a\r\nb {{ x", 2, 6, "Unexpected end of template"),
        ("{% if %}", 1, 7, "Expected an expression"),
        ("{% if a %}\n\n x", 1, 10, "'endif'"),
        ("{%- if a -%}  \n\n  {{ x! }}", 3, 7, "Unexpected char '!'."),
        ("  \n {{- a b }}", 2, 8, "got 'b'"),
        ("é\r{{ ( }}", 2, 6, "Unexpected '}', expected ')'."),
        ("{{ 'abc }}", 1, 4, "Unexpected char"),
        ("\n {# never", 2, 4, "Missing end of comment"),
        ("{% raw %}\n x", 1, 9, "Missing end of raw"),
        ("{{ 1 is nope }}", 1, 6, "no test named 'nope'"),
        ("{% wrong %}", 1, 4, "unknown tag 'wrong'"),
        ("a\n {% include 'b' %}", 2, 5, "one template"),
        ("{% extends 'b' %}", 1, 4, "one template"),
        ("{% import 'b' as c %}", 1, 4, "one template"),
        ("{% from 'b' import c %}", 1, 4, "one template"),
        ("x\n{{ " + "1" * 5000 + " }}", 2, 4, "too many digits"),
        ("{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}", 1, 1, "nested too deeply"),
    ],
)
def test_a_syntax_error_has_its_line_and_column(source: str, line: int, column: int, detail: str) -> None:
    with pytest.raises(TemplateProblem) as raised:
        check_template(Template(source))
    found = raised.value
    assert (found.part, found.line, found.column, found.runtime) == ("bodyContent", line, column, False)
    assert detail in found.detail
    with pytest.raises(TemplateProblem) as raised:
        check_template(Template("fine", header=source))
    assert (raised.value.part, raised.value.line) == ("headerContent", line)


def test_a_problem_comes_back_from_another_process_as_it_is() -> None:
    found = TemplateProblem("bodyContent", "Wrong.", 3, 7, True)
    again = pickle.loads(pickle.dumps(found))
    assert vars(again) == vars(found)
    assert str(again) == "bodyContent, line 3, column 7: Wrong."


_PIECES = [
    *(
        "{{",
        "}}",
        "{%",
        "%}",
        "{#",
        "#}",
        "{%-",
        "-%}",
        "{{-",
        "+%}",
        "\n",
        "\r\n",
        "\r",
        " ",
        "  \n",
        "é",
        "\0",
    ),
    *(
        "if",
        "for",
        "in",
        "endif",
        "endfor",
        "else",
        "set",
        "raw",
        "endraw",
        "macro",
        "block",
        "filter",
        "call",
    ),
    *("x", "loop", "self", "1", "1.5e9", "0x1f", "'a'", '"', "'", "\\", "|upper", "|nope", "is", "not", "**"),
    *(
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        ",",
        ":",
        ".",
        "=",
        "==",
        "~",
        "!",
        "$",
        "%",
        "\u2028",
        "\ud800",
        "1" * 5000,
    ),
]


@settings(max_examples=600, deadline=None)
@given(st.one_of(st.text(), st.lists(st.sampled_from(_PIECES), max_size=30).map("".join)))
def test_any_text_is_a_template_or_has_a_problem_inside_it(source: str) -> None:
    try:
        check_template(Template(source))
    except TemplateProblem as problem:
        found = problem
    else:
        return
    lines = re.split(r"\r\n|\r|\n", source)
    assert 1 <= found.line <= len(lines)
    assert 1 <= found.column <= max(len(lines[found.line - 1]), 1)
    assert found.detail
    assert not found.runtime


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="ab é\n\r\t{%}-", max_size=40), st.sampled_from(["{{ $ }}", "{{- $ -}}", "{% $ %}"]))
def test_the_place_of_an_error_is_right_behind_any_text(before: str, wrong: str) -> None:
    before = before.replace("{", "<")
    source = before + wrong
    position = source.index("$")
    lines = re.split(r"\r\n|\r|\n", source[:position])
    with pytest.raises(TemplateProblem) as raised:
        check_template(Template(source))
    assert (raised.value.line, raised.value.column) == (len(lines), len(lines[-1]) + 1)


# What fails with values


@pytest.mark.parametrize(
    ("source", "line", "detail"),
    [
        ("\n{{ 1 / 0 }}", 2, "division by zero"),
        ("{% macro a() %}\n{{ 1 / 0 }}{% endmacro %}\n{{ a() }}", 2, "division by zero"),
        ("\n\n{{ ''.__class__.__mro__ }}", 3, "not allowed in a template: '__class__'"),
        ("{{ ''|attr('__class__') }}", 1, "not allowed"),
        ("{{ '{0.__class__}'.format(1) }}", 1, "not allowed"),
        ("{{ ('{0.__class__}'|safe).format(1) }}", 1, "not allowed"),
        ("{{ job.steps.append(1) }}", 1, "not allowed"),
        ("{{ job.update(a=1) }}", 1, "not allowed"),
        ("{{ range(1000000) }}", 1, "Range too big"),
        ("{{ missing() }}", 1, "'missing' is undefined"),
        ("{{ missing + 1 }}", 1, "'missing' is undefined"),
        ("{{ job + 1 }}", 1, "unsupported operand"),
        ("{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}", 1, "too often"),
        ("{% block a %}{% endblock %}\n{% block a %}{% endblock %}", 2, "defined twice"),
        ("{% for a in [1] %}" * 30 + "{% endfor %}" * 30, 1, "nested"),
    ],
)
def test_what_fails_with_values_is_a_problem_of_the_template(source: str, line: int, detail: str) -> None:
    found = problem(source, job={"steps": []})
    assert detail in found.detail
    assert (found.part, found.line, found.runtime) == ("bodyContent", line, True)


def test_a_template_changes_no_value_of_the_next() -> None:
    context: dict[str, Any] = {"job": {"steps": [1]}}
    filled("{% set job = 1 %}{% set ns = namespace(a=1) %}{% set ns.a = 2 %}{{ ns.a }}", **context)
    assert context == {"job": {"steps": [1]}}
    assert filled("{{ ns }}{{ job.steps }}", **context) == "[1]"


def test_more_than_twenty_million_characters_are_refused() -> None:
    source = "{% for each in range(100000) %}" + "x" * (MAX_HTML // 100_000 + 1) + "{% endfor %}"
    with pytest.raises(Refused, match="more than 20,000,000 characters"):
        filled(source)


def test_the_server_never_loads_what_prints() -> None:
    code = (
        "import sys, media.pdf, server.app, server.cli;"
        "print([name for name in ('weasyprint', 'fontTools', 'media.report_text', 'media.report_pages')"
        " if name in sys.modules])"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert answer.stdout == "[]\n", answer.stderr
