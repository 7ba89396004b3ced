"""Every setting of the broker (prefix BROKER_, nested by __), one module a section."""

from app.settings.database import DatabaseSettings
from app.settings.identity import (
    CookieSettings,
    IdentitySettings,
    IssuerSettings,
    MachineIssuerSettings,
    ServiceKeySettings,
)
from app.settings.limits import LimitSettings
from app.settings.load import (
    Settings,
    SettingsError,
    load_database_settings,
    load_settings,
    reload_database_settings,
)
from app.settings.push import PushDestination, PushSettings
from app.settings.section import Environment, Section
from app.settings.serving import HttpSettings, LogSettings, MetricsSettings
from app.settings.sources import PREFIX
from app.settings.stackone import SessionSettings, StackOneSettings, SyncSettings
from app.settings.tls import TlsSettings

__all__ = [
    "PREFIX",
    "CookieSettings",
    "DatabaseSettings",
    "Environment",
    "HttpSettings",
    "IdentitySettings",
    "IssuerSettings",
    "LimitSettings",
    "LogSettings",
    "MachineIssuerSettings",
    "MetricsSettings",
    "PushDestination",
    "PushSettings",
    "Section",
    "ServiceKeySettings",
    "SessionSettings",
    "Settings",
    "SettingsError",
    "StackOneSettings",
    "SyncSettings",
    "TlsSettings",
    "load_database_settings",
    "load_settings",
    "reload_database_settings",
]
