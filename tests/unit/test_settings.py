"""Settings: read from the environment, with a clear word about what cannot be used."""

import logging
from pathlib import Path

import pytest

from server.settings import InvalidSetting, Settings


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings().environment():
        monkeypatch.delenv(name, raising=False)


def test_settings_come_from_the_environment_and_options_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIELDSYNC_PORT", "9000")
    monkeypatch.setenv("FIELDSYNC_CORS_ORIGINS", "https://a.example, https://b.example")
    settings = Settings.from_environment(data=Path("elsewhere"), host=None)
    assert settings.port == 9000
    assert settings.cors_origins == ("https://a.example", "https://b.example")
    assert settings.data == Path("elsewhere")
    assert settings.host == "127.0.0.1"
    assert Settings.from_environment(port=9001).port == 9001


def test_another_process_reads_the_same_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(port=9002, trusted_proxies=("10.0.0.0/8", "::1"), data=Path("x"))
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    assert Settings.from_environment() == settings


def test_teams_whose_people_come_from_the_provider_are_named_or_all(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings.from_environment().oidc_teams == ()
    monkeypatch.setenv("FIELDSYNC_OIDC_TEAMS", " Site East, Site West ,")
    assert Settings.from_environment().oidc_teams == ("Site East", "Site West")
    monkeypatch.setenv("FIELDSYNC_OIDC_TEAMS", "*")
    assert Settings.from_environment().oidc_teams == ("*",)


def test_a_number_that_is_none_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIELDSYNC_PORT", "eighty")
    with pytest.raises(InvalidSetting, match="FIELDSYNC_PORT"):
        Settings.from_environment()


def test_a_certificate_without_its_key_is_refused() -> None:
    with pytest.raises(InvalidSetting, match="FIELDSYNC_TLS_KEY"):
        Settings.from_environment(tls_certificate="cert.pem")


def test_background_work_is_done_here_or_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings.from_environment().worker == "embedded"
    assert Settings.from_environment(worker="none").worker == "none"
    monkeypatch.setenv("FIELDSYNC_WORKER", "yes")
    with pytest.raises(InvalidSetting, match="FIELDSYNC_WORKER"):
        Settings.from_environment()


@pytest.mark.parametrize("blobs", ["/srv/files", "s3://", "s3://b?endpoint=minio", "s3://b?regoin=x"])
def test_a_place_for_files_that_is_none_is_refused_by_name(blobs: str) -> None:
    with pytest.raises(InvalidSetting, match="FIELDSYNC_BLOBS"):
        Settings.from_environment(blobs=blobs)


def test_files_are_in_the_data_folder_or_in_s3() -> None:
    assert Settings.from_environment().blobs == ""
    location = "s3://bucket/prefix?endpoint=http://minio:9000&region=here"
    assert Settings.from_environment(blobs=location).blobs == location


def test_a_misspelt_setting_is_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("FIELDSYNC_PROT", "1")
    with caplog.at_level(logging.WARNING):
        Settings.from_environment()
    assert "FIELDSYNC_PROT" in caplog.text


def test_the_public_address_is_the_base_of_links_and_tokens() -> None:
    assert Settings(public_url="https://sync.example.com/").base_url == "https://sync.example.com"
    assert Settings(host="127.0.0.1", port=8123).base_url == "http://127.0.0.1:8123"
    assert Settings(tls_certificate="c", tls_key="k").base_url == "https://127.0.0.1:8000"


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("smtp_url", "http://mail.example.com"),
        ("smtp_url", "smtp://"),
        ("smtp_url", "smtp://host:port"),
        ("mail_from", "Fieldsync"),
        ("oidc_issuer", "http://login.example.com"),
        ("oidc_issuer", "https://login.example.com?tenant=1"),
        ("oidc_issuer", "https://login.example.com"),
        ("redirect_uris", ("javascript:alert(1)",)),
        ("redirect_uris", ("http://app.example.com/",)),
        ("redirect_uris", ("https://app.example.com/#there",)),
    ],
)
def test_an_address_for_mails_or_signing_in_that_cannot_be_used_is_refused_by_name(
    setting: str, value: object
) -> None:
    with pytest.raises(InvalidSetting, match=f"FIELDSYNC_{setting.upper()}") as refused:
        Settings.from_environment(**{setting: value})
    assert "smtp://host:port" not in str(refused.value)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("webhook_networks", ("10.1.0.0/33",)),
        ("webhook_networks", ("example.com",)),
        ("webhook_networks", ("10.1.0.1/16",)),
        ("webhook_ports", ("0",)),
        ("webhook_ports", ("65536",)),
        ("webhook_ports", ("443", "https")),
        ("webhook_ports", ("٤٤٣",)),
    ],
)
def test_a_network_or_port_for_webhooks_that_is_none_is_refused_by_name(setting: str, value: object) -> None:
    with pytest.raises(InvalidSetting, match=f"FIELDSYNC_{setting.upper()}"):
        Settings.from_environment(**{setting: value})


def test_networks_and_ports_for_webhooks_are_taken() -> None:
    settings = Settings.from_environment(
        webhook_networks=("10.1.0.0/16", "fd00::/8"), webhook_ports=("443", "8443")
    )
    assert settings.webhook_ports == ("443", "8443")


def test_addresses_for_mails_and_signing_in_are_taken() -> None:
    settings = Settings.from_environment(
        smtp_url="smtp://sync%40example.com:p%40ss@mail.example.com:587",
        mail_from="Fieldsync <sync@example.com>",
        oidc_issuer="http://127.0.0.1:8080/realm",
        oidc_client_id="fieldsync",
        redirect_uris=("com.example.app:/signed-in", "https://app.example.com/signed-in"),
    )
    assert settings.oidc_client_id == "fieldsync"
