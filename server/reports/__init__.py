"""Reports: chapters 7 and 8 of the primary specification."""

from collections.abc import Sequence
from typing import Any

route_handlers: Sequence[Any] = []
