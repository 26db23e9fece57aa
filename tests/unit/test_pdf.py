"""Reports as people get them: pages, headers, footers, pictures, letters. Printed in the real pool."""

import base64
import io
import re
from pathlib import Path

import pytest

from fixtures import pictures
from media.pdf import Printed, Template, TemplateProblem, check_template
from tests.support.printing import Printer, Tools, contents, printing, tools

__all__ = ["printing", "tools"]  # fixtures

LINES = "{% for number in range(120) %}<p>Line {{ number }}</p>{% endfor %}"
DOCUMENT = """<!doctype html>
<html lang="pl"><head><title>Own title</title><style>h1 { color: #123456 }</style></head>
<body><h1>{{ job.jobTitle }}</h1></body></html>"""


def test_a_document_is_printed_with_its_values(printing: Printer, tools: Tools) -> None:
    printed = printing(Template(DOCUMENT), {"job": {"jobTitle": "Pump <3> & co"}})
    assert printed.pdf.startswith(b"%PDF-1.7")
    assert printed.pages == 1
    assert printed.log == ()
    assert printed.html == b""
    assert "Pump <3> & co" in tools.text(printed.pdf)
    information = tools.information(printed.pdf)
    assert information["Title"] == "Own title"
    assert information["Pages"] == "1"
    assert information["Page size"].startswith("595.")
    assert b"/Lang (pl)" in contents(printed.pdf)


def test_a_fragment_is_a_report_too(printing: Printer, tools: Tools) -> None:
    assert "Only this" in tools.text(printing(Template("Only <b>this</b>")).pdf)


def test_the_options_turn_the_page_and_title_the_document(printing: Printer, tools: Tools) -> None:
    printed = printing(Template(DOCUMENT, title='Zażółć "5" \\ 100%;}', is_landscape=True))
    information = tools.information(printed.pdf)
    assert information["Page size"].startswith("841.89 x 595.27")
    assert information["Title"] == 'Zażółć "5" \\ 100%;}'
    assert 'Zażółć "5" \\ 100%;}' in tools.text(printed.pdf)
    assert printed.log == ("undefined: job.jobTitle",)


def test_every_page_has_the_header_and_its_number(printing: Printer, tools: Tools) -> None:
    header = "<header style='color: red'>Head of {{ job.jobTitle }}</header>"
    printed = printing(
        Template(LINES, header, title="Weekly", header_height=48), {"job": {"jobTitle": "Pump"}}
    )
    assert printed.pages > 2
    pages = tools.pages(printed.pdf)
    assert len(pages) == printed.pages
    for number, page in enumerate(pages, start=1):
        assert page.count("Head of Pump") == 1
        assert f"Page {number} of {printed.pages}" in page
        assert "Weekly" in page
    assert [line for page in pages for line in re.findall(r"Line \d+", page)] == [
        f"Line {number}" for number in range(120)
    ]


def test_a_hidden_footer_leaves_neither_title_nor_numbers(printing: Printer, tools: Tools) -> None:
    text = tools.text(printing(Template(LINES, title="Weekly", hide_footer=True)).pdf)
    assert "Page" not in text
    assert "Weekly" not in text


def test_a_higher_header_leaves_less_of_the_page(printing: Printer) -> None:
    low, high = (
        printing(Template(LINES, "<header>x</header>", header_height=each)).pages for each in (48, 480)
    )
    assert high > low


def test_styles_of_the_header_hold_and_its_open_tags_end_with_it(printing: Printer, tools: Tools) -> None:
    header = "<html><head><style>.gone { display: none }</style></head><body><div><b>Head<p class=gone>Gone"
    pages = tools.pages(printing(Template(LINES, header)).pdf)
    assert all("Head" in page and "Gone" not in page for page in pages)
    assert "Line 119" in pages[-1]


def test_page_rules_of_the_template_win(printing: Printer, tools: Tools) -> None:
    style = "<style>@page { size: A5; @bottom-right { content: 'Own ' counter(page) } }</style>"
    printed = printing(Template(style + LINES, is_landscape=True))
    assert tools.information(printed.pdf)["Page size"].startswith("419.")
    text = tools.text(printed.pdf)
    assert "Own 2" in text
    assert "Page 2" not in text


def test_photos_are_embedded_as_they_are_and_once(printing: Printer, tmp_path: Path) -> None:
    photo = pictures.drawing().resize((1280, 960))
    photo.save(tmp_path / "photo", "JPEG", quality=80)
    files = {"a-1/large": str(tmp_path / "photo")}
    printed = printing(Template("<img src='att:a-1/large'>" * 3), files=files)
    assert printed.log == ()
    assert printed.pdf.count((tmp_path / "photo").read_bytes()) == 1
    assert printed.pdf.count(b"/DCTDecode") == 1


@pytest.mark.parametrize("name", ["a b/large", "żółć/large", "it's/small", "a%20b/large", "x(1)/small"])
def test_a_picture_is_found_whatever_its_id(name: str, printing: Printer, tmp_path: Path) -> None:
    pictures.drawing().save(tmp_path / "photo", "JPEG")
    files = {name: str(tmp_path / "photo")}
    source = "<img src=\"att:{{ name }}\"><img src='att:{{ name | urlencode }}'>"
    printed = printing(Template(source), {"name": name}, files)
    assert printed.log == ()
    assert b"/DCTDecode" in printed.pdf


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP"])
def test_a_small_picture_stands_in_the_template(kind: str, printing: Printer) -> None:
    picture = io.BytesIO()
    pictures.drawing(64, 48).save(picture, kind)
    data = base64.b64encode(picture.getvalue()).decode()
    printed = printing(Template(f"<img src='data:image/{kind.lower()};base64,{data}'>"))
    assert printed.log == ()
    assert b"/Image" in printed.pdf


def test_the_preview_is_one_html_document_with_its_pictures(printing: Printer, tmp_path: Path) -> None:
    pictures.drawing(64, 48).save(tmp_path / "photo", "JPEG")
    files = {"a-1/large": str(tmp_path / "photo"), "a-2/large": str(tmp_path / "gone")}
    body = """<html lang="en"><head><style>p { background: url(att:a-1/large) }</style></head>
        <body class="x"><p>1 &lt; 2 att:a-1/large</p><img src="att:a-1/large" alt="att:a-1/large">
        <img src="att:a-2/large"><svg viewBox="0 0 1 1"><circle r="1"/></svg></body></html>"""
    printed = printing(Template(body, "<header>Head</header>", "Title"), files=files, as_pdf=False)
    assert (printed.pdf, printed.pages) == (b"", 0)
    html = printed.html.decode()
    assert html.startswith(
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta http-equiv="Content-'
    )
    assert html.count('"data:image/jpeg;base64,') == 1
    assert html.count("url(data:image/jpeg;base64,") == 1
    assert "<p>1 &lt; 2 att:a-1/large</p>" in html
    assert 'alt="att:a-1/large"' in html
    assert 'src="att:a-2/large"' in html
    assert '<svg viewBox="0 0 1 1"><circle r="1"></circle></svg>' in html
    assert "<header>Head</header>" in html
    assert "<title>Title</title>" in html


def test_letters_of_any_script_are_printed_or_noted(printing: Printer, tools: Tools) -> None:
    printed = printing(
        Template("<p>Zażółć gęślą jaźń</p><p>日本語のテキスト</p><p>مرحبا بالعالم</p><p>👷🏽‍♀️ 🇵🇱</p>")
    )
    assert "Zażółć gęślą jaźń" in tools.text(printed.pdf)
    assert set(printed.log) <= {"some characters are in none of the server's fonts"}


def test_styles_that_are_not_understood_are_noted(printing: Printer) -> None:
    log = printing(Template("<style>p { colour: red }</style><p>x")).log
    assert len(log) == 1
    assert "colour" in log[0]


def test_the_same_report_is_the_same_file(printing: Printer) -> None:
    first, second = (printing(Template(LINES, "<b>x</b>", "Title")) for _ in range(2))
    assert first.pdf == second.pdf


def test_problems_of_a_template_come_out_of_the_pool_as_they_are(printing: Printer) -> None:
    with pytest.raises(TemplateProblem) as raised:
        printing(Template("fine", header="a\n {{ 1 / 0 }}"))
    assert (raised.value.part, raised.value.line, raised.value.runtime) == ("headerContent", 2, True)
    with pytest.raises(TemplateProblem) as raised:
        printing.run(check_template, Template("fine {{", header=""))
    assert (raised.value.part, raised.value.line, raised.value.column) == ("bodyContent", 1, 6)


def test_what_is_printed_is_a_plain_value(printing: Printer) -> None:
    assert isinstance(printing(Template("x")), Printed)
