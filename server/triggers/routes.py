"""To come."""

from collections.abc import Sequence
from typing import Any

route_handlers: Sequence[Any] = []
