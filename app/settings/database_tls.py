"""TLS to PostgreSQL as libpq says it: which authorities are trusted, which name is compared, which key is ours."""

import ssl
from pathlib import Path
from typing import Final

from app.settings.database_url import PostgresqlUrl, SslMode

# PostgreSQL 17 demands it for sslnegotiation=direct, older ones do not mind.
_PROTOCOLS: Final = ("postgresql",)


class CertificateMistake(ValueError):
    """A file with a certificate or key cannot be used; the text begins with the word that names it."""


def tls_context(url: PostgresqlUrl, ca_file: Path | None) -> ssl.SSLContext:
    """Build the context for a mode that encrypts. Raises CertificateMistake for files that cannot be used.

    `verify-ca` and `verify-full` trust the file of `sslrootcert`, else `ca_file`, else the system's authorities
    (SSL_CERT_FILE included). `require` encrypts and compares nothing, unless an authority is named: so does libpq.
    """
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(list(_PROTOCOLS))
    context.check_hostname = url.sslmode is SslMode.VERIFY_FULL
    trusted = url.sslrootcert or ca_file
    if url.sslmode is SslMode.REQUIRE and trusted is None:
        context.verify_mode = ssl.CERT_NONE
    elif trusted is not None:
        # Only these: an authority of one's own is named so that no other can vouch for the database.
        context = _trusting(context, trusted, "sslrootcert" if url.sslrootcert else "CA_FILE")
    if url.sslcert is not None:
        try:
            context.load_cert_chain(url.sslcert, url.sslkey, password=lambda: url.sslpassword or "")
        except (OSError, ValueError) as error:
            raise CertificateMistake(f"sslcert, sslkey: {_reason(error)}") from None
    return context


def authorities_mistake(file: Path) -> str | None:
    """Say why a file of certificate authorities cannot be used, if that is so."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=file)
    except (OSError, ValueError) as error:
        return _reason(error)
    return None


def _trusting(context: ssl.SSLContext, file: Path, word: str) -> ssl.SSLContext:
    own = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    own.minimum_version = context.minimum_version
    own.set_alpn_protocols(list(_PROTOCOLS))
    own.check_hostname = context.check_hostname
    try:
        own.load_verify_locations(cafile=file)
    except (OSError, ValueError) as error:
        raise CertificateMistake(f"{word}: {_reason(error)}") from None
    return own


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "the file does not exist"
    if isinstance(error, PermissionError):
        return "the file may not be read by the broker"
    if isinstance(error, ssl.SSLError):
        return "holds no certificate or key in PEM that fit each other"
    return "the file cannot be read"
