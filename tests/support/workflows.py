"""Workflows in tests: sent as a client of the document sends them."""

from typing import Any

import httpx

from fixtures.workflow_packages import inspection, package
from tests.support.app import Account, Document, Team

BLOCK = 100 * 1024


def sent(team: Team, content: bytes, block: int = BLOCK, by: Account | None = None) -> str:
    """An upload with all its bytes; answers its id."""
    body = {"blockSize": block, "fileSize": len(content), "friendlyFileName": "Pumps.zip"}
    response = team.post("/workflows/v2/upload", json=body, by=by)
    assert response.status_code == 200, response.text
    upload_id = str(response.json()["id"])
    for start in range(0, len(content), block):
        last = start + block >= len(content)
        response = send_block(team, upload_id, content, start, block, by=by)
        assert response.status_code == (204 if last else 202), response.text
    return upload_id


def send_block(
    team: Team, upload_id: str, content: bytes, start: int, block: int = BLOCK, by: Account | None = None
) -> httpx.Response:
    """One block, with the end of its range as section 14.4.2 prints it: one too far in the last."""
    part = content[start : start + block]
    headers = {"Content-Range": f"bytes {start}-{start + block - 1}/{len(content)}"}
    return team.post(f"/workflows/v2/upload/{upload_id}", content=part, headers=headers, by=by)


def finalized(team: Team, upload_id: str, by: Account | None = None, **body: Any) -> Document:
    """The answer to a finalization that succeeds."""
    asked = {"uploadId": upload_id, **({"name": "Pumps"} if "workflowId" not in body else {}), **body}
    response = team.post("/workflows/v2", json=asked, by=by)
    assert response.status_code == 200, response.text
    return dict(response.json())


def made(team: Team, content: bytes | None = None, by: Account | None = None, **body: Any) -> Document:
    """A workflow of this package, or another version of one: {workflowId, versionId, version, …}."""
    return finalized(team, sent(team, content or package(inspection()), by=by), by=by, **body)


def workflow(team: Team, made: Document, by: Account | None = None) -> Document:
    """A workflow as it is read."""
    response = team.get(f"/workflows/v2/{made['workflowId']}", by=by)
    assert response.status_code == 200, response.text
    return dict(response.json())


def changed(team: Team, since: str | None = None, by: Account | None = None, limit: int = 100) -> Document:
    """A page of changes."""
    params = {"limit": limit} | ({} if since is None else {"since": since})
    response = team.get("/workflows/v2/changes", params=params, by=by)
    assert response.status_code == 200, response.text
    return dict(response.json())
