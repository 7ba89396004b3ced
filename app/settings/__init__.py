"""Every setting of the broker (prefix BROKER_, nested by __), one module a section."""

from app.settings.database import DatabaseSettings
from app.settings.identity import (
    CookieSettings,
    IdentitySettings,
    IssuerSettings,
    MachineIssuerSettings,
    OwnerIdForm,
    ServiceKeySettings,
)
from app.settings.invitations import InvitationSettings
from app.settings.limits import LimitSettings
from app.settings.load import (
    Settings,
    load_database_settings,
    load_settings,
    reload_database_settings,
)
from app.settings.push import PushDestination, PushSettings
from app.settings.section import Environment, Section, browser_origin
from app.settings.serving import AuditSettings, HttpSettings, LogSettings, MetricsSettings
from app.settings.sources import PREFIX
from app.settings.stackone import SessionSettings, StackOneSettings, SyncSettings
from app.settings.tls import TlsSettings
from app.settings.traces import TracesSettings
from app.settings.user_tokens import UserTokenSettings

__all__ = [
    "PREFIX",
    "AuditSettings",
    "CookieSettings",
    "DatabaseSettings",
    "Environment",
    "HttpSettings",
    "IdentitySettings",
    "InvitationSettings",
    "IssuerSettings",
    "LimitSettings",
    "LogSettings",
    "MachineIssuerSettings",
    "MetricsSettings",
    "OwnerIdForm",
    "PushDestination",
    "PushSettings",
    "Section",
    "ServiceKeySettings",
    "SessionSettings",
    "Settings",
    "StackOneSettings",
    "SyncSettings",
    "TlsSettings",
    "TracesSettings",
    "UserTokenSettings",
    "browser_origin",
    "load_database_settings",
    "load_settings",
    "reload_database_settings",
]
