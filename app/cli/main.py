"""broker: the command line. Every command reads its settings from BROKER_* and says what to do when they are wrong."""

import sys
from typing import Annotated

import typer
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.cli.accounts import accounts_cli
from app.cli.doctor import doctor
from app.cli.opener import configured_secrets, with_runtime, with_store
from app.cli.owners import owners_cli
from app.cli.policy import policy_cli
from app.cli.printer import fail, print_line, print_note, print_problem
from app.cli.push import push_cli
from app.cli.service_keys import keys_cli
from app.cli.sync import sync
from app.db.failures import DatabaseUnavailable, Failure, failure_of
from app.db.schema_version import (
    Fit,
    StoredSchema,
    alembic_config,
    expected_revision,
    known_revisions,
    stored_schema,
)
from app.errors import AppError
from app.http.server import serve as serve_app
from app.logs import configure_logs
from app.main import create_app
from app.runtime import Runtime
from app.settings import SettingsError, load_database_settings, load_settings

cli = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
cli.add_typer(keys_cli, name="service-keys")
cli.command()(sync)
cli.command()(doctor)
cli.add_typer(accounts_cli, name="accounts")
cli.add_typer(push_cli, name="push")
cli.add_typer(policy_cli, name="policy")
cli.add_typer(owners_cli, name="owners")

_EXIT_SETTINGS = 78  # EX_CONFIG of sysexits.h
_EXIT_FAILURE = 1


def main() -> None:
    """Run the command line."""
    try:
        cli()
    except SettingsError as error:
        print_problem(f"{len(error.mistakes)} setting(s) must be fixed (see docs/configuration.md):")
        for mistake in error.mistakes:
            print_note(f"  - {mistake}")
        sys.exit(_EXIT_SETTINGS)
    except DatabaseUnavailable as error:
        print_problem(f"{error.failure.detail}: {error.failure.remedy}")
        sys.exit(_EXIT_FAILURE)
    except AppError as error:
        print_problem(f"{error.title}: {error.detail or error.code}")
        sys.exit(_EXIT_FAILURE)


@cli.command()
def serve() -> None:
    """Serve the broker's HTTP API until told to stop."""
    settings = load_settings()
    configure_logs(settings.logs.level, configured_secrets(settings))
    web = create_app(settings)
    serve_app(web, settings.http, settings.metrics, web.state.metrics.registry)


@cli.command("check-config")
def check_config() -> None:
    """Check every setting, list all mistakes at once, and start nothing."""

    async def environment(runtime: Runtime) -> str:
        return runtime.settings.environment.value

    # Opening a runtime reads the policy and issuers' secrets and key files, and connects to nothing.
    print_line(f"settings are fine ({with_runtime(environment)})")


@cli.command()
def migrate(
    revision: Annotated[str, typer.Argument(help="Revision to go to; an older one downgrades.")] = "head",
    *,
    downgrade: Annotated[
        bool, typer.Option("--downgrade", help="Go back to an older revision; may drop data.")
    ] = False,
) -> None:
    """Bring the database's schema to a revision. Needs only BROKER_DATABASE__URL; safe to run twice or at once."""
    from alembic import command as alembic  # noqa: PLC0415  nothing else needs it, and importing it takes long
    from alembic.util import CommandError  # noqa: PLC0415

    settings = load_database_settings()
    config = alembic_config(settings)
    try:
        stored = with_store(_stored_schema)
        fit = stored.fit(known_revisions())
        if fit is Fit.COMPATIBLE and revision == "head":
            print_note(f"schema is at {stored.revision}, newer than this version and compatible with it: nothing to do")
            return
        if fit is Fit.TOO_NEW:
            fail(f"schema is at {stored.revision}: {fit.value}")
        (alembic.downgrade if downgrade else alembic.upgrade)(config, revision)
    except CommandError:
        known = ", ".join(known_revisions())
        fail(f"there is no revision {revision!r} to go to from here; this version knows {known}")
    except DatabaseUnavailable as error:
        fail(_cannot_migrate(error.failure))
    except Exception as error:
        failure = failure_of(error)
        if failure is None and not isinstance(error, SQLAlchemyError):
            raise
        fail(_cannot_migrate(failure) if failure else f"the migration failed ({type(error).__name__}); {_KEPT}")
    print_note(f"schema is at {expected_revision() if revision == 'head' else revision}")


_KEPT = "nothing of an unfinished step was kept"


def _cannot_migrate(failure: Failure) -> str:
    return f"the migration failed: {failure.detail}; {_KEPT}. {failure.remedy[0].upper()}{failure.remedy[1:]}."


async def _stored_schema(connection: AsyncConnection) -> StoredSchema:
    return await connection.run_sync(stored_schema)
