"""Triggers: chapter 12 of the primary specification, their deliveries, and running one by hand."""

from collections.abc import Sequence
from typing import Any

from server.triggers import deliveries, routes

route_handlers: Sequence[Any] = [*routes.route_handlers, *deliveries.route_handlers]
