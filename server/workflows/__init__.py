"""Workflows: chapter 14 of the primary specification, and their steps and changes."""

from typing import Any

route_handlers: list[Any] = []
