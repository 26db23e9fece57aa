"""Report templates: chapter 9 of the primary specification, and previews."""

from collections.abc import Sequence
from typing import Any

route_handlers: Sequence[Any] = []
