"""Team settings: chapter 11 of the primary specification."""

from typing import Any

route_handlers: list[Any] = []
