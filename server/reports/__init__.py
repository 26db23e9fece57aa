"""Reports: chapters 7 and 8 of the primary specification."""

from server.reports.routes import route_handlers

__all__ = ["route_handlers"]
