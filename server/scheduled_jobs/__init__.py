"""Scheduled jobs: chapter 10 of the primary specification, claims and reminders."""

from server.scheduled_jobs.routes import route_handlers

__all__ = ["route_handlers"]
