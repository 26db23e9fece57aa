"""An installation for the doctor, and what it finds."""

import asyncio
import subprocess
import time
from pathlib import Path
from typing import Any

from server import clock
from server.doctor import visit
from server.doctor.findings import Finding, Installation, State
from server.settings import Settings
from storage.database import open_database
from storage.queries.teams import insert_team
from tests.support.app import migrate
from tests.support.blobs import CREDENTIALS
from tests.support.process import command, environment, free_port


def findings(settings: Settings, mail_to: str = "", clock: Any = time.time, *also: str) -> dict[str, Finding]:
    """What every check finds, but those of PDF and the network unless asked for."""
    left_out = {"pdf", "fonts"} - set(also)
    checks = [check for check in visit.CHECKS if check.name not in left_out]

    async def collect() -> dict[str, Finding]:
        installation = Installation(settings, mail_to, clock)
        return {result.name: result.finding async for result in visit.examine(installation, checks)}

    return asyncio.run(collect())


def at_work(folder: Path, url: str = "", **more: Any) -> Settings:
    """The settings of an installation that has a team; its server does not run, but did so once."""
    settings = Settings(data=folder, database_url=url, port=free_port(), **more)
    migrate(settings.effective_database_url)
    (folder / "blobs").mkdir(mode=0o700, parents=True)
    write(settings, insert_team, "alpha", clock.now())
    return settings


def write(settings: Settings, work: Any, *arguments: Any) -> Any:
    async def run() -> Any:
        database = open_database(settings.effective_database_url)
        try:
            return await database.write(work, *arguments)
        finally:
            await database.close()

    return asyncio.run(run())


def doctor(*arguments: str, **settings: object) -> subprocess.CompletedProcess[str]:
    """The command, as an operator runs it."""
    return subprocess.run(
        [command(), "doctor", *arguments],
        capture_output=True,
        text=True,
        env=environment(**settings) | CREDENTIALS,
        timeout=120,
    )


def wants(finding: Finding, state: State, text: str, advice: str) -> None:
    """The finding says this, and what to do."""
    assert finding.state is state, finding
    assert text in finding.text
    assert advice in finding.advice
