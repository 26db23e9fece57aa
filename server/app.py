"""The application: all wiring on one page."""

import asyncio
import gc
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from importlib.metadata import version
from typing import Any

from litestar import Litestar, Router
from litestar.config.cors import CORSConfig
from litestar.di import Provide
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme

from media.sandbox import Sandbox
from media.uploads import Uploads
from server import (
    accounts,
    attachments,
    collections,
    files,
    groups,
    health,
    jobs,
    quarantine,
    report_templates,
    reports,
    scheduled_jobs,
    tasks,
    team_settings,
    users,
    workflows,
)
from server.accounts.shared import Accounts
from server.attachments import tus
from server.attachments.taking import Taking
from server.auth import routes as auth_routes
from server.auth.authority import Authority
from server.auth.policies import PUBLIC
from server.background import Background
from server.clock import now
from server.collections.uploading import Receiving
from server.errors import Problem, handle
from server.jobs.sync import BASIC_SYNC_PATHS, BasicSync, send_problem
from server.logs import configure_logging
from server.query import keys as query_keys
from server.query import page as query_page
from server.query import routes as query_routes
from server.query.sealing import KeySeal, QuerySecrets
from server.settings import Settings
from server.triggers import routes as triggers
from server.triggers.keys import QueryKeys
from server.workflows.finalizing import Finalizing
from storage.blobs import BlobStore, open_blobs
from storage.database import Database, open_database
from storage.queries.secrets import shared_secret
from storage.records import RecordFiles
from sync.ingest import Ingest

FEATURES = [
    *auth_routes.route_handlers,
    *accounts.route_handlers,
    *users.route_handlers,
    *groups.route_handlers,
    *team_settings.route_handlers,
    *workflows.route_handlers,
    *collections.route_handlers,
    *scheduled_jobs.route_handlers,
    *jobs.route_handlers,
    *attachments.route_handlers,
    *report_templates.route_handlers,
    *reports.route_handlers,
    *triggers.route_handlers,
    *query_routes.route_handlers,
    *query_keys.route_handlers,
    *query_page.route_handlers,
    *quarantine.route_handlers,
    *tasks.route_handlers,
    *files.route_handlers,
    *health.route_handlers,
]


class Application(Litestar):
    """The framework's application, with the busiest route answered before it."""

    basic_sync: BasicSync

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if (
            scope["type"] == "http"
            and scope["path"] in BASIC_SYNC_PATHS
            and scope["method"] == "POST"
            # Pages of other origins need the framework's CORS headers.
            and (self.cors_config is None or all(name != b"origin" for name, _ in scope["headers"]))
        ):
            await self.basic_sync(scope, receive, send)
        elif scope["type"] == "http" and "\0" in scope["path"]:
            # No id has a NUL in it, and PostgreSQL's text has none.
            await send_problem(
                send, Problem(404, "no-such-route", "There is nothing at an address with a NUL.")
            )
        elif scope["type"] == "http" and b"%00" in scope["query_string"]:
            await send_problem(send, Problem(422, "invalid-parameter", "A parameter may not hold a NUL."))
        else:
            await super().__call__(scope, receive, send)


def create_app(settings: Settings | None = None) -> Application:
    """The ASGI application for ``settings`` (default: from the environment)."""
    settings = settings or Settings.from_environment()
    configure_logging(settings)
    database = open_database(settings.effective_database_url)
    authority = Authority(database, settings)
    ingest = Ingest(database)
    blobs = open_blobs(settings.blobs, settings.data / "blobs", settings.base_url)
    store_watch = health.StoreWatch(blobs)
    uploads = Uploads(database, blobs, settings.upload_days * 86_400_000_000)
    # Granian ends its child after 20 s.
    background = Background(settings, database, blobs, uploads, ingest, stop_seconds=10)
    receiving = Receiving(database, uploads)
    records = RecordFiles(blobs, settings.data / "cache")
    signing_in = Accounts(settings, database)
    query_secrets = QuerySecrets(settings, database)
    finalizing = Finalizing(database, blobs, uploads, background.sandbox)
    taking = Taking(database, blobs, uploads)

    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncIterator[None]:
        app.state.update({"settings": settings, "ingest": ingest})
        await database.prepare()
        await authority.start()
        blobs.sign_with(await database.write(shared_secret, "files", now()))
        # What is alive now stays alive: collections need not look at it again. Requests leave few cycles,
        # and looking for them after every 700 new objects took a seventh of the time of a push.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)
        _on_announced_end(background)
        if settings.worker == "embedded":
            await background.start()
        try:
            yield
        finally:
            await taking.close()
            await finalizing.close()
            await receiving.close()
            await background.stop()
            await ingest.close()
            await records.close()
            await store_watch.close()
            await blobs.close()
            await database.close()

    def provide_settings() -> Settings:
        return settings

    def provide_database() -> Database:
        return database

    def provide_authority() -> Authority:
        return authority

    def provide_ingest() -> Ingest:
        return ingest

    def provide_blobs() -> BlobStore:
        return blobs

    def provide_store_watch() -> health.StoreWatch:
        return store_watch

    def provide_uploads() -> Uploads:
        return uploads

    def provide_taking() -> Taking:
        return taking

    def provide_accounts() -> Accounts:
        return signing_in

    def provide_finalizing() -> Finalizing:
        return finalizing

    def provide_receiving() -> Receiving:
        return receiving

    def provide_records() -> RecordFiles:
        return records

    def provide_printing() -> Sandbox:
        return background.printing

    def provide_background() -> Background:
        return background

    async def provide_query_keys() -> QueryKeys:
        return await query_secrets.temporary()

    async def provide_key_seal() -> KeySeal:
        return await query_secrets.seal()

    app = Application(
        route_handlers=FEATURES,
        guards=[authority.authorize],
        exception_handlers={Exception: handle},
        before_send=[tus.say_version],
        dependencies={
            "settings": Provide(provide_settings, sync_to_thread=False),
            "database": Provide(provide_database, sync_to_thread=False),
            "authority": Provide(provide_authority, sync_to_thread=False),
            "ingest": Provide(provide_ingest, sync_to_thread=False),
            "blobs": Provide(provide_blobs, sync_to_thread=False),
            "store_watch": Provide(provide_store_watch, sync_to_thread=False),
            "uploads": Provide(provide_uploads, sync_to_thread=False),
            "taking": Provide(provide_taking, sync_to_thread=False),
            "accounts": Provide(provide_accounts, sync_to_thread=False),
            "finalizing": Provide(provide_finalizing, sync_to_thread=False),
            "receiving": Provide(provide_receiving, sync_to_thread=False),
            "records": Provide(provide_records, sync_to_thread=False),
            "printing": Provide(provide_printing, sync_to_thread=False),
            "background": Provide(provide_background, sync_to_thread=False),
            "query_keys": Provide(provide_query_keys),
            "key_seal": Provide(provide_key_seal),
        },
        lifespan=[lifespan],
        request_max_body_size=settings.max_quarantine_bytes,
        cors_config=_cors(settings),
        openapi_config=_openapi(settings),
        # The framework's own configuration would set the root logger to INFO, whatever our setting says.
        logging_config=None,
    )
    app.basic_sync = BasicSync(authority, ingest, settings)
    return app


def _on_announced_end(background: Background) -> None:
    """Begin to end background work while the last requests are still answered; ``fieldsync serve`` sends the signal."""
    ending: set[asyncio.Task[None]] = set()

    def end() -> None:
        background.timetable.stop()
        ending.add(asyncio.create_task(background.worker.stop()))

    # Elsewhere than in the main thread, in tests, there are no signals.
    with suppress(ValueError, RuntimeError, NotImplementedError):
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, end)


def _cors(settings: Settings) -> CORSConfig | None:
    if not settings.cors_origins:
        return None
    return CORSConfig(
        allow_origins=list(settings.cors_origins),
        allow_headers=[
            "Authorization",
            "Content-Type",
            "If-Match",
            "If-None-Match",
            "Prefer",
            *tus.REQUEST_HEADERS,
        ],
        expose_headers=["ETag", "Retry-After", "Preference-Applied", *tus.ANSWER_HEADERS],
    )


def _openapi(settings: Settings) -> OpenAPIConfig:
    return OpenAPIConfig(
        title="Fieldsync",
        version=version("fieldsync"),
        description="The backend for people who work offline.",
        path="/schema",
        openapi_router=Router("/schema", route_handlers=[], opt={"policy": PUBLIC}),
        render_plugins=[JsonRenderPlugin()],
        components=Components(
            security_schemes={
                "bearer": SecurityScheme(type="http", scheme="bearer", bearer_format="JWT"),
            }
        ),
        security=[{"bearer": []}],
    )
