"""Attachments: files of jobs. Sending them (one request, blocks, tus), reading them, taking them over."""

from server.attachments.reading import route_handlers as _reading
from server.attachments.tus import route_handlers as _tus
from server.attachments.uploading import route_handlers as _uploading

route_handlers = [*_uploading, *_tus, *_reading]
