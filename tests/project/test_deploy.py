"""The deployment guide and the files in deploy/: they agree with the code, with each other, and with themselves."""

import fnmatch
import posixpath
import re
import shutil
import subprocess
import tomllib
from dataclasses import fields
from pathlib import Path, PurePosixPath
from typing import Any

import click
import pytest
import yaml

from server.cli import cli
from server.doctor import printing
from server.query.page import BUILT
from server.settings import PREFIX, Settings

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
GUIDE = ROOT / "docs" / "deployment.md"
FILES = sorted(path for path in DEPLOY.iterdir() if path.name != ".env")
UNITS = sorted(DEPLOY.glob("*.service"))
KNOWN = {PREFIX + item.name.upper() for item in fields(Settings)}
#: What our programs read of the environment beside our settings.
OTHERS = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}


def compose() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return document


def ours() -> dict[str, dict[str, Any]]:
    """The services that run our image."""
    return {
        name: each
        for name, each in compose()["services"].items()
        if "fieldsync" in each["image"].split(":")[0]
    }


def variables(path: Path) -> set[str]:
    """The variables that an example of an environment file names, also those it leaves out."""
    return set(re.findall(r"^#?([A-Z][A-Z0-9_]*)=", path.read_text(), re.MULTILINE))


def check_command(arguments: list[str]) -> None:
    """Fail unless `fieldsync` takes this command line."""
    name, *rest = arguments
    command = cli.commands[name]
    with click.Context(command) as context:
        command.parse_args(context, list(rest))


def search(pattern: str, path: Path) -> str:
    """What the group of the pattern is in a file."""
    found = re.search(pattern, path.read_text(encoding="utf-8"), re.MULTILINE)
    assert found is not None, f"{pattern} in {path.name}"
    return found[1]


Stage = list[tuple[str, str]]


def stages() -> dict[str, Stage]:
    """By name the instructions of the image's stages, each with its arguments; the last is called ``image``."""
    text = re.sub(r"^\s*#.*\n", "", (DEPLOY / "Dockerfile").read_text(), flags=re.MULTILINE)
    found: dict[str, Stage] = {}
    for line in filter(None, text.replace("\\\n", " ").splitlines()):
        name, _, arguments = line.partition(" ")
        if name == "FROM":
            stage = found.setdefault(arguments.partition(" AS ")[2] or "image", [])
        stage.append((name, arguments))
    return found


def workdir(stage: Stage) -> str:
    (folder,) = [arguments for name, arguments in stage if name == "WORKDIR"]
    return folder


def copies(stage: Stage) -> list[tuple[list[str], str]]:
    """What is copied from this repository: (sources, target)."""
    split = [arguments.split() for name, arguments in stage if name == "COPY"]
    return [(words[:-1], words[-1]) for words in split if not words[0].startswith("--from")]


def is_let_through(path: str) -> bool:
    """Whether Docker is given a file; the last line that speaks of it, or of a folder above it, decides."""
    patterns = [
        line
        for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
        if line[:1] not in ("", "#")
    ]
    names = [path, *map(str, PurePosixPath(path).parents)][:-1]
    result = True
    for pattern in patterns:
        if any(fnmatch.fnmatch(name, pattern.removeprefix("!")) for name in names):
            result = pattern.startswith("!")
    return result


@pytest.mark.parametrize("path", [*FILES, GUIDE], ids=lambda path: path.name)
def test_every_setting_that_is_named_exists(path: Path) -> None:
    assert set(re.findall(PREFIX + r"[A-Z_]*[A-Z]", path.read_text(encoding="utf-8"))) <= KNOWN


def test_every_file_that_the_guide_names_exists() -> None:
    text = GUIDE.read_text(encoding="utf-8")
    linked = {
        target.partition("#")[0] for target in re.findall(r"\]\(([^)]+)\)", text) if "://" not in target
    }
    assert sorted(target for target in linked if target and not (GUIDE.parent / target).exists()) == []
    named = set(re.findall(r"\bdeploy/[\w.@-]*\w", text)) - {"deploy/.env"}
    assert sorted(name for name in named if not (ROOT / name).exists()) == []


def test_every_file_is_in_the_guide_or_named_by_one_that_is() -> None:
    text = GUIDE.read_text(encoding="utf-8")
    # Docker finds it by its name.
    unnamed = [path.name for path in FILES if path.name not in text and path.suffix != ".dockerignore"]
    assert unnamed == []


def test_every_heading_that_the_guide_links_to_exists() -> None:
    for name, anchor in re.findall(
        r"\]\((\w+\.md|\.\./\w+\.md)#([\w-]+)\)", GUIDE.read_text(encoding="utf-8")
    ):
        headings = re.findall(r"^#+ (.+)$", (GUIDE.parent / name).read_text(encoding="utf-8"), re.MULTILINE)
        anchors = {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}
        assert anchor in anchors, f"{name}#{anchor}"


def test_every_command_of_the_guide_is_one() -> None:
    commands = re.findall(r"`fieldsync ([a-z-]+)([^`]*)`", GUIDE.read_text(encoding="utf-8"))
    assert {name for name, _ in commands} >= {"serve", "worker", "migrate", "doctor", "new-incarnation"}
    for name, options in commands:
        assert name in cli.commands, name
        known = {option for parameter in cli.commands[name].params for option in parameter.opts}
        assert set(re.findall(r"--[a-z-]+", options)) <= known


def test_the_packages_for_reports_are_the_same_everywhere() -> None:
    found = re.search(r"^PANGO := (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert found is not None
    packages = set(found[1].split())
    dockerfile = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")
    installed = re.search(r"apt-get install -y --no-install-recommends ([^&]+)&&", dockerfile)
    assert installed is not None
    assert set(installed[1].split()) == packages
    assert set(printing.PACKAGES.split()) == packages
    assert f"python3-venv {found[1]}" in GUIDE.read_text(encoding="utf-8")


def test_the_image_holds_every_package_and_is_not_root() -> None:
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text()
    wheel = re.search(r"^packages = \[(.+)\]$", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert wheel is not None
    for package in re.findall(r'"(\w+)"', wheel[1])[:5]:
        assert f"COPY {package} {package}\n" in dockerfile
        assert f"!{package}\n" in ignored
    assert re.findall(r"^USER (.+)$", dockerfile, re.MULTILINE) == ["fieldsync"]
    assert "HEALTHCHECK" in dockerfile
    assert ".[dev]" not in dockerfile


def test_what_the_image_copies_is_there_and_let_through() -> None:
    for stage in stages().values():
        for sources, _ in copies(stage):
            for source in sources:
                assert (ROOT / source).exists(), source
                assert is_let_through(source), source
    for unwanted in ("deploy/.env", "demo-data/fieldsync.db", ".git/config", "server/__pycache__/app.pyc"):
        assert not is_let_through(unwanted), unwanted


def test_the_image_has_the_designer_that_make_builds() -> None:
    recipe = r"^\.designer:\n(?:\t.*\n)*?\t.*"
    page = search(recipe + r"\[ -e (\S+)/index\.html \]", ROOT / "Makefile")
    folder = search(recipe + r"\(cd (\w+) && npm ci ", ROOT / "Makefile")
    script = search(recipe + r"&& npm run --silent (\w+)", ROOT / "Makefile")
    out = search(r"new URL\(\"(.+?)\", import\.meta\.url\)", ROOT / folder / "vite.config.ts")
    # The page's folder as its build, its server, the wheel, and whoever builds it say it.
    assert (ROOT / folder / out).resolve() == ROOT / page == BUILT
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["tool"]["hatch"]["build"]["artifacts"] == [f"{page}/**"]

    designer, build = stages()["designer"], stages()["build"]
    home = workdir(designer)
    assert [words for name, words in designer if name == "RUN"] == ["npm ci", f"npm run {script}"]
    assert copies(designer)[-1] == ([folder], "./")
    made = posixpath.normpath(posixpath.join(home, out))
    assert made == posixpath.join(workdir(build), page)
    copied, installed = build.index(("COPY", f"--from=designer {made} {page}")), len(build) - 1
    assert build.index(("COPY", "server server")) < copied < installed
    assert "pip install" in build[installed][1]
    # What is built here, by another Node.js perhaps, stays out of it.
    assert not is_let_through(f"{folder}/node_modules/vite/package.json")
    assert not is_let_through(f"{page}/index.html")


def test_all_that_the_designer_is_built_from_is_let_through() -> None:
    sources = search(r"^DESIGNER := (.+)$", ROOT / "Makefile")
    for pattern in re.findall(r"designer/[^\s)]+", sources):
        found = [path.relative_to(ROOT).as_posix() for path in ROOT.glob(pattern)]
        assert found, pattern
        assert all(map(is_let_through, found)), pattern


def test_the_images_node_is_one_that_builds_the_designer() -> None:
    major = int(search(r"^FROM node:(\d+)\S* AS designer$", DEPLOY / "Dockerfile"))
    check = search(r"process\.exit\((a > 22 .+) \? 0 : 1\)", ROOT / "Makefile")
    # The newest of its line, which is at least the one that is asked for.
    assert major > 22 or f"a == {major} " in check


def test_every_service_of_ours_runs_a_command() -> None:
    assert {name: each["command"][0] for name, each in ours().items()} == {
        "migrate": "migrate",
        "server-a": "serve",
        "server-b": "serve",
        "worker": "worker",
    }
    for each in ours().values():
        check_command(each["command"])
        assert each["stop_grace_period"] == "30s"
        assert set(each["environment"]) <= KNOWN | OTHERS
    assert compose()["services"]["worker"]["deploy"]["replicas"] == 2


def test_services_depend_on_services_and_use_volumes_that_there_are() -> None:
    document = compose()
    services, volumes = document["services"], document["volumes"]
    for name, each in services.items():
        assert set(each.get("depends_on", ())) <= set(services), name
        mounted = {volume.partition(":")[0] for volume in each.get("volumes", ())}
        assert {volume for volume in mounted if not volume.startswith(".")} <= set(volumes), name
        for volume in mounted:
            assert not volume.startswith(".") or (DEPLOY / volume).exists()
    caddy = (DEPLOY / "Caddyfile").read_text()
    for upstream in re.findall(r"([\w-]+):\d{4}", caddy):
        assert upstream in services
    subnet = document["networks"]["default"]["ipam"]["config"][0]["subnet"]
    assert ours()["server-a"]["environment"]["FIELDSYNC_TRUSTED_PROXIES"] == subnet


def test_no_service_of_ours_leaves_a_volume_without_a_name() -> None:
    for name, each in ours().items():
        targets = [volume.partition(":")[2] for volume in each.get("volumes", ())] + each.get("tmpfs", [])
        assert targets == ["/var/lib/fieldsync"], name


def test_every_variable_of_the_compose_file_is_in_its_example() -> None:
    used = set(re.findall(r"\$\{([A-Z0-9_]+)", (DEPLOY / "compose.yaml").read_text()))
    assert used == variables(DEPLOY / "compose.env.example")
    in_caddy = set(re.findall(r"\{\$([A-Z0-9_]+)\}", (DEPLOY / "Caddyfile").read_text()))
    assert in_caddy == set(compose()["services"]["proxy"]["environment"])


def test_images_come_from_no_private_registry_and_have_a_version() -> None:
    images = [each["image"] for each in compose()["services"].values()]
    images += re.findall(r"^FROM (\S+)", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    for image in images:
        name, _, tag = image.partition(":")
        assert "." not in name.split("/")[0], image
        assert tag, image
        assert tag != "latest", image


def test_no_example_holds_a_secret() -> None:
    for path in DEPLOY.glob("*.example"):
        for name, value in re.findall(
            r"^#?([A-Z0-9_]*(?:PASSWORD|SECRET)[A-Z0-9_]*)=(.*)$", path.read_text(), re.MULTILINE
        ):
            assert value == "", f"{path.name}: {name}"


def test_hosts_in_examples_are_nobodys() -> None:
    for path in [*FILES, GUIDE]:
        for host in re.findall(r"\b[a-z]+\.(?:com|net|org)\b", path.read_text(encoding="utf-8")):
            assert host == "example.com", f"{path.name}: {host}"


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_units_run_commands_and_stop_as_the_guide_says(unit: Path) -> None:
    text = unit.read_text()
    found = re.search(r"^ExecStart=/opt/fieldsync/bin/fieldsync (.+)$", text, re.MULTILINE)
    assert found is not None
    check_command(found[1].split())
    assert "TimeoutStopSec=30\n" in text
    assert "KillMode=mixed\n" in text
    assert "User=fieldsync\n" in text


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_systemd_understands_the_units(unit: Path, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd-analyze")
    copy = tmp_path / unit.name
    # It insists that the program is there.
    copy.write_text(
        unit.read_text().replace("/opt/fieldsync/bin/fieldsync", shutil.which("true") or "/bin/true")
    )
    done = subprocess.run(
        ["systemd-analyze", "verify", str(copy)], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_lines_of_the_examples_are_settings() -> None:
    assert variables(DEPLOY / "fieldsync.env.example") <= KNOWN | OTHERS


def test_docker_understands_the_compose_file(tmp_path: Path) -> None:
    try:
        there = subprocess.run(["docker", "compose", "version"], capture_output=True, timeout=60)
    except FileNotFoundError:
        pytest.skip("there is no docker")
    if there.returncode:
        pytest.skip("docker has no compose here")
    filled = tmp_path / "env"
    filled.write_text(re.sub(r"=$", "=x", (DEPLOY / "compose.env.example").read_text(), flags=re.MULTILINE))
    done = subprocess.run(
        ["docker", "compose", "--env-file", str(filled), "-f", str(DEPLOY / "compose.yaml"), "config", "-q"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
