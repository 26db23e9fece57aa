"""Accounts: passwords, and signing in on a page of ours or with an OpenID Connect provider."""

from typing import Any

route_handlers: list[Any] = []
