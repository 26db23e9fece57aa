"""The same server, answering a sync without storing it: token, body and parsing, and nothing after."""

from litestar.types import Receive, Scope, Send

from server.app import Application, create_app
from server.auth.authority import Authority
from server.jobs.sync import BasicSync, read_body
from server.settings import Settings
from sync.ingest import Ingest
from sync.snapshot import parse


class NoStore(BasicSync):
    """Everything a sync does but the merge, the storage and the answer of the merged job."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._authority.admit(scope["headers"], "Workflow_Execute")
        body = await read_body(receive, self._hard_limit)
        snapshot = parse(body or b"")
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(snapshot.body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": snapshot.body, "more_body": False})


def create() -> Application:
    """The application with syncs answered by :class:`NoStore`."""
    settings = Settings.from_environment()
    app = create_app(settings)
    product = app.basic_sync
    authority: Authority = product._authority
    ingest: Ingest = product._ingest
    app.basic_sync = NoStore(authority, ingest, settings)
    return app
