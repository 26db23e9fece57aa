"""Report templates: chapter 9 of the primary specification, and previews."""

from server.report_templates import changing, preview, routes

route_handlers = [*routes.route_handlers, *changing.route_handlers, *preview.route_handlers]

__all__ = ["route_handlers"]
