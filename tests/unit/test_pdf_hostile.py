"""Templates of strangers: nothing is read but the report's pictures, nobody is asked, and bombs die alone.

All of it in the real pool, beside a server that must see no connection and files that must not be found in what
comes out.
"""

import base64
import json
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures import pictures
from media.formats import Refused
from media.pdf import Template, TemplateProblem
from tests.support.printing import Printer, Tools, contents, printing

__all__ = ["printing"]  # a fixture

ROOT = Path(__file__).resolve().parents[2]
MARKER = "the-secret-of-this-machine-4711"


class Listener:
    """A server that counts who comes."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self.visits = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                visitor, _ = self._socket.accept()
            except OSError:
                return
            self.visits += 1
            with visitor:
                visitor.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


@pytest.fixture(scope="module")
def listener() -> Iterator[Listener]:
    server = Listener()
    # It sees those who do come.
    with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2]))) as visitor:
        assert visitor.recv(100)
    assert server.visits == 1
    server.visits = 0
    yield server
    server.close()


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a text, a style sheet, a picture, a drawing and a font that no report may hold."""
    folder = tmp_path_factory.mktemp("secrets")
    (folder / "text.txt").write_text(MARKER)
    (folder / "style.css").write_text(f"p::after {{ content: '{MARKER}' }}")
    (folder / "drawing.svg").write_text(
        f"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'><text>{MARKER}</text></svg>"
    )
    pictures.drawing(64, 48).save(folder / "picture.png")
    return folder


SVG = f"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'><text>{MARKER}</text></svg>"
ENTITY = """<!DOCTYPE svg [<!ENTITY x SYSTEM "FILE/text.txt">]>
<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'><text>&x;</text></svg>"""


def data(content_type: str, content: str) -> str:
    return f"data:{content_type};base64,{base64.b64encode(content.encode()).decode()}"


#: HTTP is a server's address, FILE that of a folder.
HOSTILE = {
    "picture of the network": "<img src='HTTP/a.png'>",
    "picture of the machine": "<img src='FILE/picture.png'>",
    "path without a scheme": "<img src='PATH/picture.png'><img src='../../picture.png'>",
    "address without a scheme": "<img src='//HOST/a.png'>",
    "scheme in capitals": "<img src='FiLe:PATH/picture.png'>",
    "leading spaces": "<img src=' \n FILE/picture.png'>",
    "srcset": "<picture><source srcset='HTTP/a.png 2x'><img srcset='HTTP/b.png' src='FILE/picture.png'></picture>",
    "object": "<object data='FILE/drawing.svg' type='image/svg+xml'></object>",
    "embed": "<embed src='FILE/drawing.svg' type='image/svg+xml'>",
    "frame": "<iframe src='FILE/text.txt'></iframe><iframe srcdoc='<img src=HTTP/a>'></iframe>",
    "frame set": "<!doctype html><html><frameset><frame src='FILE/text.txt'></frameset></html>",
    "video": "<video poster='HTTP/a.png' src='HTTP/b.mp4'></video><audio src='HTTP/c.mp3'></audio>",
    "input": "<input type=image src='FILE/picture.png'>",
    "script": "<script src='HTTP/a.js'></script><script>fetch('HTTP/b')</script>",
    "refresh": "<meta http-equiv=refresh content='0;url=HTTP/a'>",
    "icon": "<link rel=icon href='HTTP/a.ico'><link rel=preload href='HTTP/b'><link rel=prefetch href='HTTP/c'>",
    "base": "<base href='FILE/'><img src='picture.png'><link rel=stylesheet href='style.css'>",
    "base of the network": "<base href='HTTP/'><img src='picture.png'><a href='x'>x</a>",
    "style sheet of the network": "<link rel=stylesheet href='HTTP/a.css'><p>x",
    "style sheet of the machine": "<link rel=stylesheet href='FILE/style.css'><p>x",
    "import": "<style>@import url('FILE/style.css'); @import 'HTTP/a.css';</style><p>x",
    "import in a style sheet": "<link rel=stylesheet href=\"data:text/css,@import 'FILE/style.css'\"><p>x",
    "attachment": "<link rel=attachment href='FILE/text.txt' title='x'><link rel='x Attachment' href='HTTP/a'>",
    "attachment at a link": "<a rel=attachment href='FILE/text.txt'>x</a><a rel=' ATTACHMENT ' href='HTTP/a'>x</a>",
    "attachment in a drawing": "<svg><a rel=attachment href='FILE/text.txt'><text>x</text></a></svg>",
    "attachment of data": "<a rel=attachment href='data:text/plain,x' download=x>x</a>",
    "font": "<style>@font-face { font-family: x; src: url('HTTP/a.woff2'), url('FILE/text.txt') }</style>",
    "font of the system": "<style>@font-face { font-family: x; src: local('DejaVu Sans') }</style>",
    "font of data": f"<style>@font-face {{ font-family: x; src: url({data('font/ttf', MARKER)}) }}</style>",
    "colour profile": "<style>@color-profile --x { src: url(FILE/text.txt) } p { color: color(--x 1 0 0) }</style><p>x",
    "background": "<body style='background: url(FILE/picture.png)'><p style='background-image: url(HTTP/a)'>x",
    "list": "<ul style='list-style-image: url(FILE/picture.png)'><li>x</ul>",
    "content": "<style>p::before { content: url(FILE/picture.png) url(HTTP/a) }</style><p>x",
    "content of an attribute": "<style>p::before { content: attr(title url) }</style><p title='FILE/picture.png'>x",
    "border": "<p style='border-image: url(FILE/picture.png) 1; border-width: 9px'>x",
    "mask and cursor": "<p style='mask: url(HTTP/a); cursor: url(HTTP/b); filter: url(HTTP/c#d)'>x",
    "page": "<style>@page { background: url(FILE/picture.png); @top-left { content: url(HTTP/a) } }</style><p>x",
    "variable": "<style>:root { --x: url(FILE/picture.png) } p { background: var(--x) }</style><p>x",
    "picture in a drawing": "<svg width=9 height=9><image href='FILE/picture.png' width=9 height=9 /></svg>",
    "old picture in a drawing": "<svg width=9 height=9><image xlink:href='HTTP/a' width=9 height=9 /></svg>",
    "base in a drawing": "<svg xml:base='FILE/' width=9 height=9><image href='picture.png' width=9 height=9 /></svg>",
    "part of another drawing": "<svg width=9 height=9><use href='FILE/drawing.svg#x'/><use href='HTTP/a#b'/></svg>",
    "style of a drawing": "<svg width=9 height=9><style>@import 'FILE/style.css'; text { fill: url(HTTP/a) }</style></svg>",
    "foreign object": "<svg width=9 height=9><foreignObject><img src='FILE/picture.png'></foreignObject></svg>",
    "drawing of data": f"<img src='{data('image/svg+xml', SVG)}'>",
    "drawing of data that poses as a picture": f"<img src='{data('image/png', SVG)}'>",
    "drawing with an entity": "<img src='ENTITY'>",
    "drawing in plain data": f'<img src="data:image/svg+xml,{SVG.replace(chr(34), chr(39))}">',
    "text of data": f"<object data='data:text/html,{MARKER}'></object>",
    "EPS of data": "<img src='EPS'>",
    "large data": f"<img src='data:image/png;base64,{'iVBORw0KGgo' + 'A' * 1_400_000}'>",
    "another attachment": "<img src='att:other/large'><img src='att:../../etc/passwd'><img src='att:PATH/picture.png'>",
    "attachment that is no picture": "<img src='att:text/large'>",
    "attachment that is a drawing": "<img src='att:drawing/large'><object data='att:drawing/large'></object>",
    "attachment as a style sheet": "<link rel=stylesheet href='att:style/large'><p>x",
    "other schemes": "<img src='ftp://HOST/a'><img src='jar:FILE/a'><img src='gopher://HOST/'><img src='about:blank'>",
    "UNC path": "<img src='\\\\\\\\HOST\\\\a.png'>",
    "metadata": "<meta name=dcterms.created content='FILE'><link rel=describedby href='FILE/text.txt'>",
}


def hostile(name: str, listener: Listener, secrets: Path) -> str:
    host = listener.url.partition("//")[2]
    eps = base64.b64encode(pictures.eps()).decode()
    return (
        HOSTILE[name]
        .replace("ENTITY", data("image/svg+xml", ENTITY.replace("FILE", secrets.as_uri())))
        .replace("EPS'", f"data:image/png;base64,{eps}'")
        .replace("HTTP", listener.url)
        .replace("FILE", secrets.as_uri())
        .replace("PATH", str(secrets))
        .replace("HOST", host)
    )


@pytest.mark.parametrize("place", ["body", "header"])
@pytest.mark.parametrize("name", HOSTILE)
def test_no_request_leaves_and_no_file_is_read(
    name: str, place: str, listener: Listener, secrets: Path, printing: Printer
) -> None:
    source = hostile(name, listener, secrets)
    template = Template(source) if place == "body" else Template("<p>x</p>", source)
    files = {f"{each}/large": str(next(secrets.glob(f"{each}.*"))) for each in ("text", "drawing", "style")}
    printed = printing(template, files=files)
    everything = contents(printed.pdf)
    assert printed.pages == 1
    assert MARKER.encode() not in everything
    assert shutil.which("pdftotext") is None or MARKER not in Tools().text(printed.pdf)
    assert b"/Image" not in everything
    assert b"/EmbeddedFile" not in everything
    preview = printing(template, files=files, as_pdf=False).html.decode()
    assert MARKER not in preview or MARKER in source
    assert listener.visits == 0


def test_the_same_does_find_a_picture_that_may_be_read(secrets: Path, printing: Printer) -> None:
    printed = printing(Template("<img src='att:a/large'>"), files={"a/large": str(secrets / "picture.png")})
    assert b"/Image" in contents(printed.pdf)


@pytest.mark.parametrize(
    ("source", "note"),
    [
        ("<img src='https://example.com/a.png'>", "refused: https://example.com/a.png"),
        ("<img src='file:///etc/passwd'>", "refused: file:///etc/passwd"),
        ("<img src='att:other/large'>", "refused: att:other/large"),
        ("<link rel=stylesheet href='https://example.com/a.css'>", "refused: https://example.com/a.css"),
        ("<a rel=attachment href='file:///etc/passwd'>x</a>", "refused: file:///etc/passwd"),
        ("<style>@font-face { font-family: x; src: url(https://a/b) }</style>", "refused: @font-face x"),
        ("<img src='data:image/svg+xml,<svg>'>", "refused: data:image/svg+xml,<svg>"),
        (f"<img src='https://a/{'b' * 300}'>", f"refused: https://a/{'b' * 180}…"),
    ],
)
def test_what_is_refused_is_noted_once(source: str, note: str, printing: Printer) -> None:
    assert printing(Template(source * 2)).log == (note,)


def test_nothing_is_opened_but_the_pictures(listener: Listener, secrets: Path, tmp_path: Path) -> None:
    """With Python's own eyes: whatever it opens, and whomever it speaks to, while all of them are printed."""
    picture = tmp_path / "picture"
    pictures.drawing(64, 48).save(picture, "JPEG")
    sources = [hostile(name, listener, secrets) for name in HOSTILE]
    code = """
import json, sys
from media.pdf import Template, print_report, warm_up

sources, picture = json.load(sys.stdin)
warm_up()
seen = set()
WATCHED = ("open", "os.listdir", "os.scandir", "socket", "subprocess", "os.exec", "os.system", "os.posix_spawn",
           "tempfile", "urllib", "ctypes.dlopen", "pathlib.Path.glob", "os.mkdir")
watching = True
def watch(event, arguments):
    if watching and event.startswith(WATCHED):
        seen.add(f"{event} {arguments[0]!r}")
sys.addaudithook(watch)
for source in sources:
    print_report(Template(source + "<img src='att:a/large'>"), {}, {"a/large": picture})
    print_report(Template(source + "<img src='att:a/large'>"), {}, {"a/large": picture}, False)
watching = False
print(json.dumps(sorted(seen)))
"""
    answer = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        input=json.dumps([sources, str(picture)]),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert answer.returncode == 0, answer.stderr
    seen = json.loads(answer.stdout)
    opened = [each for each in seen if ".venv" not in each and "/python3" not in each]
    assert opened == [f"open {str(picture)!r}"], opened
    assert listener.visits == 0


# Bombs


#: Each with what it ends with.
BOMBS = {
    "a text of 1 GB": ("{{ 'a' * 10**9 }}", "memory"),
    "doubling": (
        "{% set ns = namespace(s='a' * 16) %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.s }}",
        "memory",
    ),
    "doubling lists": (
        "{% set ns = namespace(l=[1]) %}{% for i in range(60) %}{% set ns.l = ns.l + ns.l %}{% endfor %}",
        "memory",
    ),
    "a huge join": ("{{ range(100000) | join('x' * 20000) }}", "memory"),
    "padding": ("{{ 'a' | center(10**9) }}", "memory"),
    "formatting": ("{{ '%1000000000d' | format(1) }}", "memory"),
    "a power": ("{{ 9 ** (9 ** 9) }}", "longer"),
    "nested loops": (
        "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
        "longer",
    ),
    "much text": (
        "{% for a in range(100000) %}{% for b in range(1000) %}aaaaaaaa{% endfor %}{% endfor %}",
        "20,000,000 characters",
    ),
    "a wide cell": ("<table><tr><td colspan=1000000>x</table>", "longer|memory"),
    "wide columns": ("<table><colgroup span=10000000><tr><td>x</table>", "longer|memory"),
    "20,000 nested blocks": ("<div>" * 20_000, "longer|nested"),
    "20,000 nested letters": ("<b>" * 20_000 + "x", "longer|nested"),
    "1,000 nested blocks": ("<div>" * 1_000 + "x" + "</div>" * 1_000, "nested"),
    "a giant table": (
        "<table>{% for i in range(100000) %}<tr><td>{{ i }}<td>b<td>c{% endfor %}</table>",
        "longer|memory",
    ),
    "tiny pages": (
        "<style>@page { size: 1px 1px; margin: 0 }</style>{% for i in range(50000) %}<p>x{% endfor %}",
        "longer|memory",
    ),
    "a drawing of copies": (
        "<svg><rect id=a0 />"
        + "".join(f"<g id=a{i + 1}><use href='#a{i}'/><use href='#a{i}'/></g>" for i in range(40))
        + "<use href='#a40'/></svg>",
        "longer|memory",
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_dies_at_the_limit_and_the_next_report_is_printed(name: str, printing: Printer) -> None:
    source, end = BOMBS[name]
    # What ends at the limit of time need not be waited for so long; what ends at another must come there.
    with pytest.raises(Refused, match=end):
        printing(Template(source), seconds=3 if "longer" in end else 60)
    printed = printing(Template("<p>{{ 6 * 7 }}</p>"))
    assert (printed.pages, printed.log) == (1, ())


def test_a_template_that_calls_itself_is_a_problem(printing: Printer) -> None:
    with pytest.raises(TemplateProblem, match="too often"):
        printing(Template("{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}"))
    assert printing(Template("x")).pages == 1


@pytest.mark.parametrize("as_pdf", [True, False], ids=["PDF", "HTML"])
def test_a_picture_that_would_fill_the_memory_is_not_drawn(
    as_pdf: bool, printing: Printer, tmp_path: Path
) -> None:
    (tmp_path / "bomb").write_bytes(pictures.png_bomb(12_000, 12_000))
    inside = base64.b64encode(pictures.png_bomb(12_000, 12_000)).decode()
    source = f"<img src='att:a/large'><img src='data:image/png;base64,{inside}'>"
    printed = printing(Template(source), files={"a/large": str(tmp_path / "bomb")}, as_pdf=as_pdf)
    if as_pdf:
        assert len(printed.log) == 2
        assert b"/Image" not in printed.pdf


def test_a_damaged_picture_leaves_the_rest(printing: Printer, tmp_path: Path) -> None:
    (tmp_path / "cut").write_bytes(pictures.cut(pictures.jpeg()))
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "start").write_bytes(b"\xff\xd8\xff")
    files = {f"{name}/large": str(tmp_path / name) for name in ("cut", "empty", "start", "gone")}
    source = "".join(f"<img src='att:{name}'>" for name in files) + "<p>The rest</p>"
    printed = printing(Template(source), files=files)
    assert printed.pages >= 1
    assert [note for note in printed.log if note.startswith("refused")] == [
        "refused: att:empty/large",
        "refused: att:start/large",
        "refused: att:gone/large",
    ]
