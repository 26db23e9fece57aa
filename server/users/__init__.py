"""Users: chapter 13 of the primary specification."""

from server.users.routes import route_handlers

__all__ = ["route_handlers"]
