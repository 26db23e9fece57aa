"""Workflows: chapter 14 of the primary specification, and their steps and changes."""

from server.workflows import changes, changing, reading, uploading

route_handlers = [
    *uploading.route_handlers,
    *reading.route_handlers,
    *changes.route_handlers,
    *changing.route_handlers,
]

__all__ = ["route_handlers"]
