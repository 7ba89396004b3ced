"""Whom the broker trusts when it connects."""

from collections.abc import Iterator
from pathlib import Path

from pydantic import Field

from app.settings.section import Environment, Section


class TlsSettings(Section):
    """Certificate authorities of one's own."""

    ca_file: Path | None = Field(
        default=None,
        description="Certificate authorities (PEM) to trust instead of the system's; SSL_CERT_FILE does the same.",
    )

    def unsafe(self, environment: Environment) -> Iterator[tuple[str, str]]:
        """Yield a file that is not there."""
        del environment
        if self.ca_file is not None and not self.ca_file.is_file():
            yield "CA_FILE", "the file does not exist"
