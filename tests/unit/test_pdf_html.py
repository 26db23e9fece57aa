"""Previews' HTML: nothing in it runs, asks the network or leads away, also not after another parser has read it."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from weasyprint import HTML

from fixtures import pictures
from media import report_html
from media.formats import Refused
from media.pdf import Printed, Template, print_report
from tests.support.printing import Printer, contents, printing

__all__ = ["printing"]  # a fixture

OURS = 'http-equiv="Content-Security-Policy"'
FORBIDDEN = {"script", "iframe", "frame", "object", "embed", "link", "base", "animate", "set", "applet"}


def html_of(source: str, header: str = "") -> str:
    return print_report(Template(source, header), {}, {}, as_pdf=False).html.decode()


def elements(html: str) -> Iterator[tuple[str, dict[str, str]]]:
    """What a parser reads of it: tags in lower case without namespaces, and attributes likewise."""
    for element in HTML(string=html).etree_element.iter():
        if isinstance(element.tag, str):
            names = {name.rpartition("}")[2].lower(): value for name, value in element.attrib.items()}
            yield element.tag.rpartition("}")[2].lower(), names


def harmful(html: str) -> list[str]:
    """What of it would run, ask or lead away."""
    found, metas = [], 0
    for tag, attributes in elements(html):
        metas += "http-equiv" in attributes
        found += [tag] if tag in FORBIDDEN else []
        found += [
            f"{tag} {name}={value}"
            for name, value in attributes.items()
            if name.startswith("on")
            or name in ("action", "formaction", "srcdoc", "ping")
            or re.sub(r"[\x00-\x20]", "", value).lower().startswith(("javascript:", "vbscript:"))
        ]
    return found + ["http-equiv"] * (metas - 2)


HOSTILE = [
    "<meta http-equiv=refresh content='0;url=https://a/'>",
    "<META HTTP-EQUIV='set-cookie' content=a><svg><meta http-equiv=refresh content=0></svg>",
    "<link rel=preconnect href=https://a><link rel=dns-prefetch href=//a><body><link rel=prefetch href=https://a>",
    "<base href=https://a><p>x",
    "<script>alert(1)</script><svg><script>alert(1)</script><script href='data:,1'/></svg>",
    "<math><script>1</script></math>",
    "<object data=https://a><embed src=b></object><iframe srcdoc='<script>1</script>'></iframe><applet code=a>",
    "<frameset onload=alert(1)><frame src=https://a></frameset>",
    "<form action=https://a><button formaction='javascript:1'>x</button></form>",
    "<p onclick=1 OnLoad=2><svg onload=1><a xlink:href='javascript:1'><text>x</text></a></svg>",
    "<a href=' jav\tascript:alert(1)' ping=https://a>x</a><a href='" + " " * 500 + "JaVaScRiPt:1'>y</a>",
    "<svg><a><animate attributeName=href values=javascript:1 /><set attributeName=onclick to=1 /></a></svg>",
    "<x}script>alert(1)</x}script><p {x}onclick=1 {http://www.w3.org/1999/xlink}onload=1>x",
    "<svg><style>&lt;/style>&lt;script>alert(1)&lt;/script></style></svg>",
    "<svg></p><style><a title='</style><img src=x onerror=alert(1)>'></svg>",
    "<svg><style><!--</style><a title='--><script>1</script>'></svg>",
    "<math><mtext><table><mglyph><style><!--</style><img title='--&gt;&lt;img src=1 onerror=alert(1)&gt;'>",
    "<form><math><mtext></form><form><mglyph><style></math><img src onerror=alert(1)>",
    "<style><img src=x onerror=alert(1)></style><svg><desc><style><script>1</script></style></desc></svg>",
    "<noscript><p title='</noscript><img src=x onerror=alert(1)>'></noscript>",
    "<noembed><img src=x onerror=1></noembed><xmp><script>1</script></xmp><plaintext><script>1</script>",
    "<textarea><script>1</script></textarea><title></title><svg><title><script>1</script></title></svg>",
    "<p title='\"><script>1</script>'><!-- --!><script>1</script> -->",
    "<template><script>1</script></template><svg><foreignObject><iframe src=https://a></foreignObject></svg>",
]


@pytest.mark.parametrize("source", HOSTILE)
def test_nothing_in_it_runs_asks_or_leads_away(source: str) -> None:
    for html in (html_of(source), html_of("<p>x", source)):
        assert harmful(html) == []
        assert html.count(OURS) == 1
        # Read and written again, as an editor of templates may.
        assert harmful(html_of(html)) == []


PIECES = st.sampled_from(
    [each for source in HOSTILE for each in re.split(r"(?=<)|(?<=>)", source)]
    + [
        "<svg>",
        "</svg>",
        "<math>",
        "<mtext>",
        "<table>",
        "<tr>",
        "</style>",
        "<style>",
        "<!--",
        "-->",
        "<![CDATA[",
        "]]>",
    ]
    + [
        "<select>",
        "<option>",
        "<p>",
        "</p>",
        "<br>",
        "<b>",
        "</b>",
        "<foreignObject>",
        "<desc>",
        "<annotation-xml>",
    ]
)


@given(st.lists(PIECES, max_size=15).map("".join))
@settings(max_examples=150, deadline=None)
def test_nor_does_any_mixture_of_them(source: str) -> None:
    source = "{% raw %}" + source + "{% endraw %}"
    assert harmful(html_of(source)) == []


def test_what_follows_the_removed_stays() -> None:
    html = html_of("<p>a<script>b</script>c<iframe></iframe>d</p><noscript>e</noscript><!-- f -->g &lt;h&gt;")
    assert "<p>acd</p><span>e</span>g &lt;h&gt;" in html
    assert "f" not in html.partition("<body>")[2].partition("g ")[0]


def test_styles_and_drawings_stay_as_they_are() -> None:
    source = (
        "<style><!-- p > b { content: 'a & b' } @media (width < 400px) { p { color: red } } --></style>"
        '<svg viewBox="0 0 9 9"><style>a > b { fill: "&amp;" }</style><linearGradient id="x"></linearGradient>'
        '<use xlink:href="#x"></use></svg><br><a href="https://example.com/?a=1&amp;b=2" title="&lt;">x</a>'
    )
    html = html_of(source)
    assert " p > b { content: 'a & b' } @media (width < 400px) { p { color: red } } -->" in html
    assert (
        '<svg viewBox="0 0 9 9"><style>a &gt; b { fill: &quot;&amp;&quot; }</style><linearGradient id="x">'
        in html
    )
    assert (
        '<use xlink:href="#x"></use></svg><br><a href="https://example.com/?a=1&amp;b=2" title="&lt;">x</a>'
        in html
    )


def test_one_pass_gives_the_same_as_two(printing: Printer, tmp_path: Path) -> None:
    pictures.drawing(64, 48).save(tmp_path / "photo", "JPEG")
    template = Template(
        "<p>{{ nothing }}<img src='att:a/large'><svg viewBox='0 0 9 9'><rect width=9 height=9 /></svg>",
        "<b>Head</b>",
    )
    files = {"a/large": str(tmp_path / "photo")}
    both = printing.run(print_report, template, {}, files, True, True)
    pdf, html = printing(template, files=files), printing(template, files=files, as_pdf=False)
    assert both == Printed(html.html, pdf.pdf, 1, ("undefined: nothing",))
    assert b"data:image/jpeg" in both.html


def test_the_html_and_the_pdf_have_a_most(printing: Printer, tmp_path: Path) -> None:
    (tmp_path / "photo").write_bytes(pictures.jpeg(pictures.drawing(1280, 960)))
    files = {"a/large": str(tmp_path / "photo")}
    times = report_html.MAX_BYTES // (tmp_path / "photo").stat().st_size + 1
    repeated = Template("<img src='att:a/large'>" * times)
    with pytest.raises(Refused, match="more than 25 MB with its pictures"):
        printing(repeated, files=files, as_pdf=False)
    with pytest.raises(Refused, match="more than 25 MB with its pictures"):
        printing(Template("<p>{{ '€' * 9000000 }}"), as_pdf=False)
    with pytest.raises(Refused, match="The PDF has more than 0 MB"):
        printing.run(print_report, Template("x"), {}, {}, True, False, 1000)


def test_a_picture_is_read_once_however_often_it_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures.drawing(64, 48).save(tmp_path / "photo", "JPEG")
    reads: list[Path] = []
    read = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: reads.append(path) or read(path))
    files = {"a/large": str(tmp_path / "photo")}
    printed = print_report(Template("<img src='att:a/large'>" * 9), {}, files, as_pdf=False)
    assert printed.html.count(b"data:image/jpeg") == 9
    assert reads == [tmp_path / "photo"]


@pytest.mark.parametrize(
    ("source", "note"),
    [
        ("<style>@import url(logo.svg); p { color: red }</style>x", "refused: logo.svg"),
        ("<style>@import 'a/b.css';</style>x", "refused: a/b.css"),
        ("<link rel=stylesheet href='../a.css'>x", "refused: ../a.css"),
        ("<img src=logo.png>", "refused: logo.png"),
        ("<svg viewBox='a'><rect /></svg>", "not understood: viewBox='a'"),
        ("<svg viewBox='0 0 nan 9'><rect /></svg>", "not understood: viewBox='0 0 nan 9'"),
    ],
)
def test_what_leads_nowhere_does_not_fail_a_report(source: str, note: str, printing: Printer) -> None:
    printed = printing(Template(f"{source}<p>The rest"))
    assert printed.log == (note,)
    assert printed.pages == 1


def test_a_relative_link_is_none(printing: Printer) -> None:
    printed = printing(
        Template("<a href='x/y'>a</a><a href='https://example.com/'>b</a><a href='#c'>c</a><p id=c>")
    )
    assert b"x/y" not in contents(printed.pdf)
    assert b"https://example.com/" in contents(printed.pdf)


def test_what_nobody_expects_is_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ValueError("could not convert '\ud800\0'")

    for step, as_pdf in (
        ("media.report_pages.compose", True),
        ("media.report_pages.print_document", True),
        ("media.report_html.standalone", False),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(step, fail)
            with pytest.raises(Refused) as raised:
                print_report(Template("x"), {}, {}, as_pdf)
        assert str(raised.value) == (
            "The report cannot be laid out. Something in its HTML, its CSS or a drawing (<svg>) is not understood: "
            "ValueError: could not convert '?\ufffd'"
        )
