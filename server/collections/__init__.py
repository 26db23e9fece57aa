"""Collections: chapter 4 of the primary specification, and their records."""

from typing import Any

route_handlers: list[Any] = []
