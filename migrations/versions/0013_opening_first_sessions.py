"""PostgreSQL opens a session only for an owner that has no account of its provider, and says so otherwise.

Revision: 0013
Follows: 0012
"""

from alembic import op

revision = "0013"
down_revision = "0012"
# Older code asks for the accounts first, and opens the session by itself.
oldest_compatible = "0003"

# Most sessions are for a first account. Whether it is one has to be known before the session is opened: a second would
# be a duplicate, so what is there is opened for editing instead.
_UNLESS_LINKED = """
CREATE FUNCTION open_connect_session_unless_linked(
    new_session jsonb, new_name text, new_at timestamptz, most_live integer, most_accounts integer,
    OUT pinned_name text, OUT opened boolean, OUT live bigint, OUT first_end timestamptz, OUT accounts bigint,
    OUT linked boolean
) LANGUAGE plpgsql AS $function$
BEGIN
    linked := EXISTS (
        SELECT FROM linked_accounts a
        WHERE a.owner_id = new_session ->> 'owner_id' AND lower(a.provider) = lower(new_session ->> 'provider')
            AND a.verified_at IS NOT NULL AND a.deleted_at IS NULL
    );
    IF NOT linked THEN
        SELECT o.pinned_name, o.opened, o.live, o.first_end, o.accounts
        INTO pinned_name, opened, live, first_end, accounts
        FROM open_connect_session(new_session, new_name, new_at, most_live, most_accounts) o;
    END IF;
END
$function$
"""


def upgrade() -> None:
    """Create the function; SQLite has none, and one writer."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute(_UNLESS_LINKED)


def downgrade() -> None:
    """Drop the function."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION open_connect_session_unless_linked(jsonb, text, timestamptz, integer, integer)")
