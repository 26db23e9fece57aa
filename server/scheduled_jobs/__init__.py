"""Scheduled jobs: chapter 10 of the primary specification, claims and reminders."""

from typing import Any

route_handlers: list[Any] = []
