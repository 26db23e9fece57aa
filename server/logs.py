"""Logging of a process: one line each, to standard error."""

import logging

from server.settings import Settings


def configure_logging(settings: Settings) -> None:
    """Log from the level of the settings on."""
    logging.basicConfig(
        level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )
    # Alembic says at every start that there is nothing to do.
    logging.getLogger("alembic").setLevel(logging.WARNING)
