"""Jobs: chapter 6 of the primary specification, and the reopening of aborted ones."""

from server.jobs.changes import route_handlers as _changes
from server.jobs.reading import route_handlers as _reading
from server.jobs.steps import route_handlers as _steps
from server.jobs.sync import route_handlers as _sync

route_handlers = [*_sync, *_reading, *_steps, *_changes]
