"""The page of the query designer: what it may do, what is served beside it, and the form where it was not built."""

import gzip
import re
from pathlib import Path

import httpx
import pytest

from server.query import page
from tests.support.app import PUBLIC_URL, RunningApp, problem

SCRIPT = b"console.log('a script')"


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A build of the designer, with a file in it that has no business there, and one beside it."""
    folder = tmp_path / "static"
    (folder / "assets").mkdir(parents=True)
    (folder / "index.html").write_text("<title>the designer</title>")
    (folder / "assets" / "main-1a2b.js").write_bytes(SCRIPT)
    (folder / "assets" / "main-1a2b.js.gz").write_bytes(gzip.compress(SCRIPT))
    (folder / "assets" / "codicon-1a2b.ttf").write_bytes(b"font")
    (folder / "assets" / "notes.txt").write_text("secret")
    (tmp_path / "outside.js").write_text("secret")
    monkeypatch.setattr(page, "BUILT", folder)
    return folder


def directives(response: httpx.Response) -> dict[str, str]:
    parts = (part.split(maxsplit=1) for part in response.headers["content-security-policy"].split(";"))
    return {part[0]: part[1] for part in parts}


@pytest.mark.parametrize("address", ["/query", "/query/", "/query?code=abc&state=def"])
def test_the_designer_is_a_page_that_is_asked_for_anew(
    sqlite_app: RunningApp, build: Path, address: str
) -> None:
    response = sqlite_app.http.get(address)
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert response.headers["cache-control"] == "no-cache"
    assert "the designer" in response.text


def test_the_designer_may_ask_nobody_but_this_server(sqlite_app: RunningApp, build: Path) -> None:
    response = sqlite_app.http.get("/query")
    policy = directives(response)
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert (
        policy["script-src"]
        == policy["connect-src"]
        == policy["worker-src"]
        == policy["font-src"]
        == "'self'"
    )
    # Neither other hosts nor scripts in the page; styles in it are the editor's.
    assert not re.search(r"https?:|\*|blob:|unsafe-eval", response.headers["content-security-policy"])
    assert [name for name, value in policy.items() if "'unsafe-inline'" in value] == ["style-src"]
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["x-frame-options"] == "DENY"
    assert response.headers["referrer-policy"] == "no-referrer"


def test_assets_are_kept_by_browsers_and_come_compressed_to_those_who_take_it(
    sqlite_app: RunningApp, build: Path
) -> None:
    address = "/query/static/assets/main-1a2b.js"
    squeezed = sqlite_app.http.get(address, headers={"Accept-Encoding": "br, gzip"})
    plain = sqlite_app.http.get(address, headers={"Accept-Encoding": "identity"})
    assert squeezed.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert squeezed.content == plain.content == SCRIPT
    for response in (squeezed, plain):
        assert response.headers["content-type"] == "text/javascript; charset=utf-8"
        assert response.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert response.headers["vary"] == "Accept-Encoding"
        assert response.headers["x-content-type-options"] == "nosniff"
        assert directives(response)["default-src"] == "'none'"
    font = sqlite_app.http.get("/query/static/assets/codicon-1a2b.ttf", headers={"Accept-Encoding": "gzip"})
    assert (font.content, font.headers["content-type"]) == (b"font", "font/ttf")


@pytest.mark.parametrize(
    "path",
    [
        "assets/../index.html",
        "assets/..%2findex.html",
        "assets/..%2f..%2foutside.js",
        "assets/%2e%2e%2f%2e%2e%2foutside.js",
        "assets/..%5c..%5coutside.js",
        "assets/%2fetc%2fpasswd",
        "../outside.js",
        "index.html",
        "assets/notes.txt",
        "assets/main-1a2b.js.gz",
        "assets/missing.js",
        "assets/.js",
        "assets/" + "a" * 300 + ".js",
        "assets/main%001.js",
        "assets/%ff.js",
        "assets",
        "",
    ],
)
def test_nothing_else_is_served(sqlite_app: RunningApp, build: Path, path: str) -> None:
    response = sqlite_app.http.get(f"/query/static/{path}")
    assert response.status_code == 404
    assert b"secret" not in response.content
    assert b"designer</title>" not in response.content


def test_without_a_build_there_is_a_form_that_says_so(
    sqlite_app: RunningApp, build: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "BUILT", tmp_path / "nothing")
    response = sqlite_app.http.get("/query")
    assert response.status_code == 200
    assert "was not built" in response.text
    assert '<form method="get" action="/query/v2/graph">' in response.text
    assert f"{PUBLIC_URL}/query/v2/graph?key=" in response.text
    assert "script" not in response.text
    assert directives(response)["form-action"] == "'self'"
    assert "unsafe" not in response.headers["content-security-policy"]
    refused = sqlite_app.http.get("/query/static/assets/main-1a2b.js")
    assert problem(refused, 404)["code"] == "no-such-route"


def test_the_form_is_there_beside_the_designer(sqlite_app: RunningApp, build: Path) -> None:
    response = sqlite_app.http.get("/query/plain")
    assert response.status_code == 200
    assert "was not built" not in response.text
    for name in ("query", "key", "csv"):
        assert f'name="{name}"' in response.text


def test_the_real_build_names_only_assets_that_are_there(sqlite_app: RunningApp) -> None:
    if not (page.BUILT / "index.html").is_file():
        pytest.skip("the query designer was not built (make .designer)")
    text = sqlite_app.http.get("/query").text
    named = re.findall(r'(?:src|href)="([^"]+)"', text)
    assert len(named) >= 3
    for address in named:
        assert address.startswith("/query/")
        response = sqlite_app.http.get(address)
        assert response.status_code == 200, address
