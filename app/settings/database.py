"""The store."""

from pydantic import Field, SecretStr, field_validator

from app.settings.section import Section


class DatabaseSettings(Section):
    """The store: SQLite for one process, PostgreSQL for many."""

    url: SecretStr = Field(description="sqlite:///path or postgresql://user:password@host/name.")
    pool_size: int = Field(
        default=10, ge=1, le=200, description="Connections kept to PostgreSQL; SQLite always uses one."
    )
    pool_overflow: int = Field(default=10, ge=0, le=200, description="Further connections under load.")
    pool_timeout_seconds: float = Field(default=5, gt=0, le=60, description="Longest wait for a connection before 503.")
    statement_timeout_seconds: float = Field(default=10, gt=0, le=300, description="Longest single statement.")

    @field_validator("url")
    @classmethod
    def _known_scheme(cls, url: SecretStr) -> SecretStr:
        scheme = url.get_secret_value().partition("://")[0]
        if scheme not in {"sqlite", "sqlite+aiosqlite", "postgresql", "postgres", "postgresql+asyncpg"}:
            message = "must begin with sqlite:/// or postgresql://"
            raise ValueError(message)
        return url
