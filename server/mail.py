"""Mails: through SMTP, or into files of the data folder where no server is set."""

from typing import NamedTuple

from server.settings import Settings


class Mail(NamedTuple):
    """One mail to one person. ``html`` is made from ``text`` if there is none."""

    to: str
    subject: str
    text: str
    html: str | None = None


class MailFailed(Exception):
    """The mail was not taken. ``permanent``: it never will be."""

    def __init__(self, detail: str, permanent: bool = False) -> None:
        super().__init__(detail)
        self.permanent = permanent


class Mailer:
    """Sends mails as the settings say."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def send(self, mail: Mail, message_id: str) -> None:
        """Hand the mail over. ``message_id``: the same at every attempt, so that a reader can drop doubles.

        Raises:
            MailFailed: it was not taken.
        """
        raise NotImplementedError
