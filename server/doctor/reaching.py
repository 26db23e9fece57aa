"""The server at its public address, and the provider whose people sign in."""

import msgspec

from server.accounts.provider import Provider, ProviderDown, ProviderWrong
from server.doctor.asking import Answer, Unreachable, ask
from server.doctor.findings import Finding, Installation, failed, ok, skipped, warning

_SKEW_SECONDS = 5


class _Ready(msgspec.Struct):
    """What `/readyz` answers, well or not."""

    status: str | int
    parts: dict[str, str] = {}


async def check_server(installation: Installation) -> Finding:
    """It answers where clients ask, is ready, and has our time."""
    settings = installation.settings
    url = f"{settings.base_url}/readyz"
    try:
        answer = await ask(url)
    except Unreachable as error:
        if error.untrusted:
            return failed(
                f"{settings.base_url}: {error}",
                "Renew the certificate, or give it the whole chain and this name. Tablets refuse it as well.",
            )
        if not settings.public_url:
            return skipped(f"no server runs at {settings.base_url}: {error}")
        return warning(
            f"{settings.base_url} cannot be reached from here: {error}",
            "Start the server (systemctl start fieldsync); then look at DNS, the proxy and the firewall. If only this "
            "machine cannot reach it, ask from another one.",
        )
    return _judged(installation, answer)


def _judged(installation: Installation, answer: Answer) -> Finding:
    url = f"{installation.settings.base_url}/readyz"
    try:
        ready = msgspec.json.decode(answer.content, type=_Ready)
    except msgspec.MsgspecError:
        ready = None
    if answer.status == 503 and ready is not None and ready.parts:
        lacking = ", ".join(name for name, state in ready.parts.items() if state != "ok")
        return failed(f"{url} answers 503: not answering: {lacking}", f"See the findings about {lacking}.")
    if answer.status != 200 or ready is None or ready.status != "ready":
        return failed(
            f"{url} answers {answer.status}, and not as Fieldsync does",
            "Something else has this address: correct FIELDSYNC_PUBLIC_URL, or what the proxy passes where. 502 and "
            "504 of a proxy: start the server behind it.",
        )
    lacking = ", ".join(name for name, state in ready.parts.items() if state != "ok")
    if lacking:
        return failed(
            f"{url} is ready, but when it last looked, half a minute ago or less, it did not reach: {lacking}",
            f"See the findings about {'files' if lacking == 'blobs' else lacking}.",
        )
    skew = installation.clock() - answer.date if answer.date is not None else 0.0
    if abs(skew) > _SKEW_SECONDS:
        return warning(
            f"{url} is ready; its clock is {abs(skew):,.0f} s {'behind' if skew > 0 else 'ahead of'} this machine's",
            "Let every machine follow a time server: timedatectl set-ntp true, or chrony.",
        )
    return ok(f"{url} is ready")


async def check_provider(installation: Installation) -> Finding:
    """The OpenID Connect provider describes itself."""
    settings = installation.settings
    if not settings.oidc_issuer:
        return skipped("FIELDSYNC_OIDC_ISSUER is not set")
    callback = f"{settings.base_url}/account/oidc/callback"
    try:
        await Provider(settings).begin(callback)
    except ProviderDown as error:
        return failed(
            f"{settings.oidc_issuer} does not answer: {error}",
            "Look at FIELDSYNC_OIDC_ISSUER, name resolution, the firewall and the provider's certificate. Passwords go "
            "on working.",
        )
    except ProviderWrong as error:
        return failed(
            f"{settings.oidc_issuer} cannot be used: {installation.quote(error)}",
            "FIELDSYNC_OIDC_ISSUER must be the issuer exactly as the provider spells it, also whether it ends with /; "
            "see its /.well-known/openid-configuration.",
        )
    return ok(f"{settings.oidc_issuer} answers; it must know {callback}")
