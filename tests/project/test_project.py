"""Prose that matters, checked: settings, routes, tables, codes and guides agree with the code."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path

import pytest
from sqlalchemy import ForeignKeyConstraint, Table, UniqueConstraint

from server.settings import PREFIX, Settings
from storage.tables import metadata
from tests.support.app import RunningApp, snapshot
from tests.support.process import ServerProcess, command, init, serve
from tests.support.routes import routes_of

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ["server", "sync", "storage", "media", "fixtures"]

#: Chapter 6 of the specification, and what the product adds to it so far.
CHAPTER_6 = [
    ("6.1", "get", "/jobs/v1"),
    ("6.2", "get", "/jobs/v1/workflow/{}"),
    ("6.3", "get", "/jobs/v1/snapshots/{}"),
    ("6.4", "get", "/jobs/v1/{}"),
    ("6.5", "get", "/jobs/v1/bson/{}"),
    ("6.6", "get", "/jobs/v1/my"),
    ("6.7", "post", "/jobs/v1/{}/abort"),
    ("6.8", "delete", "/jobs/v1/{}"),
    ("6.9", "post", "/jobs/v1/{}/assign/{}"),
    ("6.10", "put", "/jobs/v1/{}"),
    ("6.11", "post", "/jobs/v1/{}/metadata"),
    ("6.12", "post", "/jobs/v1"),
    ("6.13", "put", "/jobs/v1/abort"),
    ("6.14", "post", "/jobs/v1/basicSync"),
    ("6.15", "post", "/jobs/v1/{}"),
]


def sources(*packages: str) -> Iterator[Path]:
    for package in packages:
        yield from sorted((ROOT / package).rglob("*.py"))


def text_of(name: str) -> str:
    path = ROOT / name
    assert path.exists(), f"{name} is not written yet"
    return path.read_text(encoding="utf-8")


# Prose


@pytest.mark.parametrize("name", [item.name for item in fields(Settings)])
def test_every_setting_is_in_the_readme(name: str) -> None:
    assert f"{PREFIX}{name.upper()}" in text_of("README.md")


def test_the_readme_names_no_setting_that_does_not_exist() -> None:
    known = {PREFIX + item.name.upper() for item in fields(Settings)}
    assert set(re.findall(PREFIX + r"[A-Z_]*[A-Z]", text_of("README.md"))) <= known


def test_every_setting_has_a_reason() -> None:
    assert [item.name for item in fields(Settings) if not item.metadata.get("reason")] == []


def test_every_path_that_the_guide_names_exists() -> None:
    guide = text_of("CONTRIBUTING.md")
    named = {
        found.rstrip("/")
        for found in re.findall(r"[`(]((?:[\w.-]+/)+[\w.-]*|[\w-]+\.(?:py|md|toml))[`)]", guide)
        if "://" not in found
    }
    assert named, "a guide that names no file is of little help"
    assert sorted(name for name in named if not (ROOT / name).exists()) == []


def test_changes_are_logged() -> None:
    assert text_of("CHANGELOG.md").strip()


def test_every_code_of_a_refusal_is_documented() -> None:
    documented = "".join(
        text_of(f"docs/{name}.md") for name in ("protocol", "resources", "reports", "triggers", "queries")
    )
    assert sorted(code for code in codes() if f"`{code}`" not in documented) == []


def codes() -> set[str]:
    """Every code with which something is refused, as far as it stands in the sources as a literal."""
    patterns = [
        # Problem(404, "code", ...), _unauthorized("code", ...), TooLarge("code", ...) and the like.
        r"\bProblem\(\s*\d{3},\s*\"([a-z0-9-]+)\"",
        r"\b(?:\w*Snapshot|TooLarge|NotFound|Gone|Forbidden|Conflict|PreconditionFailed|Busy)\(\s*\"([a-z0-9-]+)\"",
        r"\b_unauthorized\(\s*\"([a-z0-9-]+)\"",
        r"\bcode(?:: str)?=\"([a-z0-9-]+)\"",
        r"\d{3}: \"([a-z0-9-]+)\"",
        r"_invalid\([^()]*(?:\([^()]*\)[^()]*)*,\s*\"([a-z0-9-]+)\"\)",
    ]
    found: set[str] = set()
    for path in sources("server", "sync"):
        source = path.read_text(encoding="utf-8")
        for pattern in patterns:
            found.update(re.findall(pattern, source))
    return found


def test_the_codes_are_found_in_the_sources() -> None:
    # If nothing were found, the test above would pass for nothing.
    assert {
        "job-finished",
        "install-cloned",
        "malformed-json",
        "token-expired",
        "invalid-envelope",
    } <= codes()


# Code


def test_no_file_is_longer_than_600_lines() -> None:
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines())
        for path in sources(*PACKAGES, "tests")
    }
    assert {name: length for name, length in lengths.items() if length > 600} == {}


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in sources(*PACKAGES, "tests")
        if path.stat().st_size and not path.read_text(encoding="utf-8").lstrip().startswith('"""')
    ]
    assert silent == []


# Tables


@pytest.mark.parametrize("table", metadata.sorted_tables, ids=lambda table: table.name)
def test_every_primary_key_begins_with_the_team(table: Table) -> None:
    if table.name in ("signing_keys", "server_secrets"):
        pytest.skip("belongs to the installation: what signs for every team")
    assert next(iter(table.primary_key.columns)).name == "team_id"


@pytest.mark.parametrize("table", metadata.sorted_tables, ids=lambda table: table.name)
def test_every_foreign_key_has_an_index_on_both_sides(table: Table) -> None:
    for constraint in table.foreign_key_constraints:
        assert _indexed(table, [column.name for column in constraint.columns]), constraint.name
        assert _indexed(constraint.referred_table, _referred(constraint)), constraint.name


def _referred(constraint: ForeignKeyConstraint) -> list[str]:
    return [element.column.name for element in constraint.elements]


def _indexed(table: Table, columns: list[str]) -> bool:
    """Whether an index, the primary key or a unique constraint begins with these columns."""
    keys = [[column.name for column in table.primary_key.columns]]
    keys += [[column.name for column in index.columns] for index in table.indexes]
    keys += [
        [column.name for column in constraint.columns]
        for constraint in table.constraints
        if isinstance(constraint, UniqueConstraint)
    ]
    return any(sorted(key[: len(columns)]) == sorted(columns) for key in keys)


# Routes


def test_every_route_has_a_policy_a_summary_and_a_tag(sqlite_app: RunningApp) -> None:
    lacking = [
        str(route)
        for route in routes_of(sqlite_app.litestar)
        if not route.template.startswith("/schema")
        and not (route.policy and route.handler.summary and route.handler.tags)
    ]
    assert lacking == []


def test_no_two_operations_have_the_same_summary(sqlite_app: RunningApp) -> None:
    seen: dict[object, str] = {}
    for route in routes_of(sqlite_app.litestar):
        if not route.template.startswith("/schema"):
            name = route.handler.handler_name
            assert seen.setdefault(route.handler.summary, name) == name


@pytest.mark.parametrize(("section", "method", "path"), CHAPTER_6)
def test_the_openapi_document_lists_the_operations_of_chapter_6(
    sqlite_app: RunningApp, section: str, method: str, path: str
) -> None:
    document = sqlite_app.http.get("/schema/openapi.json").json()
    operations = {
        (name, re.sub(r"\{[^}]*\}", "{}", address))
        for address, item in document["paths"].items()
        for name in item
    }
    assert (method, path) in operations, section


def test_the_openapi_document_says_how_to_authorize(sqlite_app: RunningApp) -> None:
    document = sqlite_app.http.get("/schema/openapi.json").json()
    assert document["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    assert document["info"]["title"] == "Fieldsync"


# Servers


def push_once(server: ServerProcess, created: dict[str, str]) -> None:
    """One basic sync through a real server."""
    with server.connect(server.token(created)) as client:
        response = client.post("/jobs/v1/basicSync", content=json.dumps(snapshot()).encode())
    assert response.status_code == 200, response.text
    assert response.json()["sync"]["action"] == "created"


def test_uvicorn_serves_the_application_too(tmp_path: Path) -> None:
    data = tmp_path / "data"
    created = init(data)
    arguments = [command("uvicorn"), "server.app:create_app", "--factory", "--port", "{port}"]
    server = ServerProcess(arguments, tmp_path, {"data": data})
    try:
        server.wait_until_ready()
        push_once(server, created)
    finally:
        server.kill()


def test_ours_is_served_from_a_folder_with_another_package_called_server(
    start_server: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    for name in ("server", "sync", "storage"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise ImportError('somebody else’s package')\n")
    data = tmp_path / "data"
    created = init(data)
    push_once(start_server(data), created)


def test_a_relative_data_folder_is_that_of_the_caller(tmp_path: Path) -> None:
    created = init(tmp_path / "data")
    server = serve(tmp_path, Path("data"))
    try:
        push_once(server, created)
    finally:
        server.kill()
    assert (tmp_path / "data" / "fieldsync.db").exists()
    assert not shutil.which("fieldsync.db", path=str(ROOT))
