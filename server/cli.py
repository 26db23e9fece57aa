"""The command ``fieldsync``."""

import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import click
import granian
from granian.constants import Interfaces, Loops

from server.settings import InvalidSetting, Settings

# Commands import what they need when they run: `serve` only watches over its child, and without the database
# library in it the whole server takes 132 MB under load instead of 160.

#: Files and connections that a process asks to have open at once.
_FILES = 65_536

_DATA = click.option(
    "--data", type=click.Path(path_type=Path, file_okay=False), help="Data folder.  [default: data]"
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="fieldsync")
def cli() -> None:
    """The backend for people who work offline. Settings are FIELDSYNC_* variables; see the README."""


@cli.command()
@click.option("--team", required=True, help="Name of the team.")
@click.option("--owner", required=True, metavar="EMAIL", help="E-mail address its owner signs in with.")
@_DATA
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def init(team: str, owner: str, data: Path | None, as_json: bool) -> None:
    """Create a team, its owner and a client. The secrets are printed once."""
    from server import operations

    created = _run(operations.init, _settings(data=data), team, owner)
    if as_json:
        click.echo(json.dumps(created, ensure_ascii=False))
        return
    for key, value in created.items():
        click.echo(f"{key:<13} {value}")
    click.echo("\nKeep the password and the clientSecret now: they are not shown again.", err=True)


@cli.command()
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on.  [default: 8000]")
@_DATA
@click.option("--no-worker", is_flag=True, help="Leave background work to `fieldsync worker`.")
def serve(host: str | None, port: int | None, data: Path | None, no_worker: bool) -> None:
    """Serve the API. On SQLite the schema is brought up to date first."""
    settings = _settings(host=host, port=port, data=data, worker="none" if no_worker else None)
    settings.data.mkdir(parents=True, exist_ok=True)
    _ask_for_files()
    # The serving process is a child of this one and reads the same settings.
    os.environ.update(settings.environment())
    server = granian.Granian(
        # By its file: given a module's name, Granian puts the current folder first on the import path, and
        # beside a folder called `server` or `storage` it would import that one.
        f"{Path(__file__).resolve().with_name('app.py')}:create_app",
        address=settings.host,
        port=settings.port,
        interface=Interfaces.ASGI,
        factory=True,
        loop=Loops.auto,
        workers=1,
        working_dir=Path(__file__).resolve().parent.parent,
        websockets=False,
        backlog=1024,
        # For requests that are not over: uploads. Also, a worker that was told to stop while it started would not
        # hear of it again.
        workers_kill_timeout=20,
        log_level=settings.log_level,  # type: ignore[arg-type]  # checked by Settings
        ssl_cert=Path(settings.tls_certificate) if settings.tls_certificate else None,
        ssl_key=Path(settings.tls_key) if settings.tls_key else None,
    )
    interrupt: Callable[..., None] = server.signal_handler_interrupt

    def end(*_: object) -> None:
        # Granian's child would hear of the end when its last request is over, and is killed if that takes too
        # long. Background work is to be handed back in any case, so it hears of it now. From Granian's own list:
        # multiprocessing.active_children() would reap a child for whose end Granian waits.
        for child in server.wrks:
            process = child.inner
            if isinstance(process, BaseProcess) and process.pid is not None:
                with suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGUSR1)
        interrupt()

    # A child that does not listen for it yet is ended by it, which is as good: it serves nothing yet.
    server.signal_handler_interrupt = end  # type: ignore[method-assign]
    server.serve()


@cli.command()
@_DATA
def worker(data: Path | None) -> None:
    """Do background work without serving. Any number of these may run beside `serve`."""
    from server import background

    settings = _settings(data=data)
    settings.data.mkdir(parents=True, exist_ok=True)
    _ask_for_files()
    _run(background.main, settings)


@cli.command()
@_DATA
def migrate(data: Path | None) -> None:
    """Bring the schema of the database up to this version."""
    from server import operations

    _run(operations.migrate, _settings(data=data))
    click.echo("The schema is current.")


@cli.command()
@_DATA
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--mail-to", metavar="ADDRESS", default="", help="Send one test mail to this address.")
def doctor(data: Path | None, as_json: bool, mail_to: str) -> None:
    """Find out what is wrong with this installation, and what to do about it.

    Run it as the account of the service and with its settings, before or while the server runs. It changes
    nothing that stays. Secrets are never printed.

    Looks at the settings, the data folder, the database (schema, writing, clock, waiting and failed tasks), the
    files and their addresses, mail, PDF reports and fonts, webhooks, the server at its public address and single
    sign-on.

    Exit status: 0 if nothing failed (warnings are no failure), 1 if something failed, 2 if the settings cannot be
    read.
    """
    from server.doctor import visit

    try:
        settings = Settings.from_environment(data=data)
    except InvalidSetting as error:
        visit.say(visit.refused(str(error), as_json))
        sys.exit(2)
    visit.visit(settings, mail_to=mail_to, as_json=as_json)


@cli.command("new-incarnation")
@_DATA
def new_incarnation(data: Path | None) -> None:
    """After a restore from a backup: tell devices apart what they saw before it. Restart the servers then."""
    from server import operations

    value = _run(operations.new_incarnation, _settings(data=data))
    click.echo(f"The incarnation is {value} now. Restart every server.")


@cli.command()
@click.option(
    "--data", type=click.Path(path_type=Path, file_okay=False), default=Path("demo-data"), show_default=True
)
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True)
@click.option("--once", is_flag=True, help="Exit when the tablets are done.")
def demo(data: Path, port: int, once: bool) -> None:
    """Play three tablets against a fresh server, and show what became of their work."""
    from server import demo as tablets  # the demo's libraries are not the server's

    sys.exit(tablets.run(data=data, port=port, once=once))


def _ask_for_files() -> None:
    """Connections are files. Many systems give a process 1,024 of them unless it asks for more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(hard, _FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _settings(**overrides: Any) -> Settings:
    try:
        return Settings.from_environment(**overrides)
    except InvalidSetting as error:
        raise click.ClickException(str(error)) from None


def _run(operation: Any, *arguments: Any) -> Any:
    try:
        return operation(*arguments)
    except ValueError as error:
        raise click.ClickException(str(error)) from None


def main() -> None:
    """Entry point of the command."""
    cli()


if __name__ == "__main__":
    main()
