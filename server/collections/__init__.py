"""Collections: chapter 4 of the primary specification, and their records."""

from typing import Any

from server.collections import records, routes, uploading

route_handlers: list[Any] = [*routes.route_handlers, *uploading.route_handlers, *records.route_handlers]
