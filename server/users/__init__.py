"""Users: chapter 13 of the primary specification."""

from server.users import permissions, routes, signing_in

route_handlers = [*routes.route_handlers, *permissions.route_handlers, *signing_in.route_handlers]

__all__ = ["route_handlers"]
