"""Accounts: passwords, and signing in on a page of ours or with an OpenID Connect provider."""

from litestar import Router

from server.accounts import links, passwords, signing_in, single_sign_on
from server.accounts.rendering import on_error

route_handlers = [
    passwords.change_password,
    links.send_link,
    Router(
        "/",
        route_handlers=[
            signing_in.sign_in_page,
            signing_in.sign_in,
            single_sign_on.start,
            single_sign_on.come_back,
            passwords.change_page,
            passwords.change_on_page,
            links.forgotten_page,
            links.forgotten,
            links.new_password_page,
            links.new_password,
        ],
        # People see these: what goes wrong is a page, too.
        exception_handlers={Exception: on_error},
    ),
]

__all__ = ["route_handlers"]
