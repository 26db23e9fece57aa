"""Groups of users: chapter 5 of the primary specification."""

from typing import Any

route_handlers: list[Any] = []
