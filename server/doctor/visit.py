"""All checks, in their order, and how they are told."""

import asyncio
import json
import os
import shutil
import sys
import textwrap
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from importlib.metadata import version
from typing import NamedTuple, NoReturn

from server.doctor import files, machine, printing, reaching, sending, storing
from server.doctor.findings import Check, Finding, Installation, State, failed, one_line
from server.settings import Settings

#: What later ones need comes first.
CHECKS = (
    Check("settings", machine.check_settings),
    Check("data-folder", machine.check_data_folder),
    Check("database", storing.check_database, late=storing.when_unreachable),
    Check("database-file", machine.check_database_file),
    Check("schema", storing.check_schema),
    Check("teams", storing.check_teams),
    Check("writing", storing.check_writing, late=storing.when_locked),
    Check("clock", storing.check_clock),
    Check("background-work", storing.check_background_work),
    Check("failed-tasks", storing.check_failed_tasks),
    Check("files", files.check_files),
    Check("file-addresses", files.check_addresses),
    Check("mail", sending.check_mail),
    Check("test-mail", sending.check_test_mail, 60),
    # A cold start of the library on a busy machine.
    Check("pdf", printing.check_pdf, 30),
    Check("fonts", printing.check_fonts),
    Check("webhooks", machine.check_webhooks),
    Check("public-address", machine.check_public_address),
    Check("server", reaching.check_server),
    Check("single-sign-on", reaching.check_provider),
    Check("open-files", machine.check_open_files),
)
_NAME_WIDTH = max(len(check.name) for check in CHECKS)
_STATE_WIDTH = max(len(state) for state in State)
_INDENT = " " * (_STATE_WIDTH + _NAME_WIDTH + 4)
_CLOSE_SECONDS = 5


class Result(NamedTuple):
    """A finding and whose it is."""

    name: str
    finding: Finding


async def examine(installation: Installation, checks: Sequence[Check] = CHECKS) -> AsyncIterator[Result]:
    """The findings, one after the other. Nothing that happens to a check keeps the others from being made."""
    try:
        for check in checks:
            yield Result(check.name, await _made(check, installation))
    finally:
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await installation.close()
        except Exception as error:
            sys.stderr.write(f"closing: {installation.quote(error)}\n")


async def _made(check: Check, installation: Installation) -> Finding:
    limit = asyncio.timeout(check.seconds)
    try:
        async with limit:
            state, text, advice = await check.work(installation)
        return Finding(state, installation.hide(text), installation.hide(advice))
    except Exception as error:
        if limit.expired():
            return failed(
                f"no answer within {check.seconds:.0f} seconds",
                check.late(installation),
            )
        return failed(
            f"{type(error).__name__}: {installation.quote(error)}",
            "The check itself did not expect this; look at what it names, and please report it.",
        )


def visit(settings: Settings, *, mail_to: str = "", as_json: bool = False) -> NoReturn:
    """Make all checks, print what they find and end the process with its exit status."""
    asyncio.run(_visit(Installation(settings, mail_to), as_json))


async def _visit(installation: Installation, as_json: bool) -> NoReturn:
    results: list[Result] = []
    async for result in examine(installation):
        results.append(result)
        if not as_json:
            say(as_text(result))
    worst = overall(results)
    if as_json:
        say(as_document(results))
    else:
        counted = Counter(result.finding.state for result in results)
        say("\n" + ", ".join(f"{counted[state]} {state}" for state in State))
    # Not by returning: Python waits for its threads, and one may hang in what a check has asked.
    os._exit(1 if worst is State.FAILED else 0)


def refused(reason: str, as_json: bool) -> str:
    """What is told of settings that cannot be read."""
    advice = "Correct the variable and run this again. The README lists all settings."
    result = Result("settings", failed(reason, advice))
    return as_document([result]) if as_json else as_text(result)


def overall(results: Sequence[Result]) -> State:
    """The worst of them, of which being skipped is none."""
    states = {result.finding.state for result in results}
    return next((state for state in (State.FAILED, State.WARNING) if state in states), State.OK)


def as_text(result: Result) -> str:
    """For people: a line, and one with what to do. On a terminal, broken where it ends."""
    state, text, advice = result.finding
    lines = _broken(one_line(text), _INDENT)
    head = f"{state:<{_STATE_WIDTH}}  {result.name:<{_NAME_WIDTH}}  "
    lines = head + lines[len(_INDENT) :]
    return f"{lines}\n{_broken('-> ' + one_line(advice), _INDENT, '   ')}" if advice else lines


def _broken(text: str, indent: str, hang: str = "") -> str:
    if not sys.stdout.isatty():
        return indent + text
    width = max(shutil.get_terminal_size().columns, len(indent) + 40)
    return textwrap.fill(
        text,
        width,
        initial_indent=indent,
        subsequent_indent=indent + hang,
        break_on_hyphens=False,
        break_long_words=False,
    )


def as_document(results: Sequence[Result]) -> str:
    """For programs: one JSON object. Members are added, never taken away."""
    return json.dumps(
        {
            "version": version("fieldsync"),
            "state": overall(results),
            "checks": [
                {"name": name, "state": state, "finding": one_line(text), "advice": advice}
                for name, (state, text, advice) in results
            ],
        },
        indent=2,
    )


def say(text: str) -> None:
    """Print a line, whatever letters the terminal knows."""
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "replace").decode(encoding) + "\n")
    sys.stdout.flush()
