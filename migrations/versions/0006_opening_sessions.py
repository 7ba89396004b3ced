"""PostgreSQL pins a name, holds the quotas and writes a session down in one statement.

Revision: 0006
Follows: 0005
"""

from alembic import op

revision = "0006"
down_revision = "0005"
# Code of 0003 to 0005 does the same in several statements, and takes the same lock.
oldest_compatible = "0003"

# A function, since each of its statements sees what was committed before it: whoever waits for the owner's lock counts
# the session of the one that held it. A single query would count by the snapshot of its beginning.
# app/connect_sessions/opening.py has the same steps for SQLite, and the reasons.
_OPEN = """
CREATE FUNCTION open_connect_session(
    new_session jsonb, new_name text, new_at timestamptz, most_live integer, most_accounts integer,
    OUT pinned_name text, OUT opened boolean, OUT live bigint, OUT first_end timestamptz, OUT accounts bigint
) LANGUAGE plpgsql AS $function$
DECLARE
    session connect_sessions := jsonb_populate_record(NULL::connect_sessions, new_session);
    wanted text := lower(session.provider);
    is_first boolean := false;
    further bigint;
    since timestamptz;
    others boolean;
BEGIN
    LOOP
        SELECT o.owner_name INTO pinned_name FROM owners o WHERE o.owner_id = session.owner_id FOR UPDATE;
        EXIT WHEN FOUND;
        INSERT INTO owners (owner_id, owner_name, pinned_at, pinned_by) VALUES (
            session.owner_id,
            coalesce(
                (
                    SELECT a.owner_name FROM linked_accounts a
                    WHERE a.owner_id = session.owner_id AND a.deleted_at IS NULL AND a.verified_at IS NOT NULL
                        AND a.owner_name IS NOT NULL AND a.owner_name <> ''
                    ORDER BY a.updated_at DESC, a.account_id LIMIT 1
                ),
                new_name
            ),
            new_at,
            session.requested_by
        ) ON CONFLICT DO NOTHING;
        is_first := FOUND;
    END LOOP;

    SELECT count(*), min(s.expires_at) INTO live, first_end FROM connect_sessions s
    WHERE s.owner_id = session.owner_id AND s.status IN ('minting', 'pending') AND s.expires_at > new_at
        AND (s.door = 'auth_link') = (session.door = 'auth_link');
    opened := live < most_live;

    IF opened AND most_accounts IS NOT NULL THEN
        SELECT count(*) INTO accounts FROM linked_accounts a
        WHERE a.owner_id = session.owner_id AND lower(a.provider) = wanted
            AND a.deleted_at IS NULL AND a.disconnect_requested_at IS NULL;

        SELECT count(*) FILTER (WHERE s.multiple), min(s.created_at) FILTER (WHERE s.multiple),
            coalesce(bool_or(NOT s.multiple), false)
        INTO further, since, others FROM connect_sessions s
        WHERE s.owner_id = session.owner_id AND s.status IN ('minting', 'pending') AND s.expires_at > new_at
            AND s.mode = 'create' AND (lower(s.provider) = wanted OR s.provider IS NULL);

        IF further > 0 THEN
            SELECT greatest(0, further - count(DISTINCT a.account_id)) INTO further
            FROM linked_accounts a JOIN account_events e ON e.account_id = a.account_id
            WHERE a.owner_id = session.owner_id AND lower(a.provider) = wanted
                AND a.deleted_at IS NULL AND a.disconnect_requested_at IS NULL
                AND e.kind = 'account.linked' AND e.at >= since
                AND NOT EXISTS (
                    SELECT FROM connect_sessions s
                    WHERE s.owner_id = session.owner_id AND s.linked_account_id = a.account_id
                );
        END IF;

        IF session.multiple OR NOT (accounts > 0 OR others) THEN
            opened := accounts + further + CASE WHEN others AND accounts = 0 THEN 1 ELSE 0 END < most_accounts;
        END IF;
    END IF;

    IF opened THEN
        INSERT INTO connect_sessions (
            id, owner_id, requested_by, door, mode, status, provider, categories, account_id, multiple, policy_rule,
            created_at, expires_at
        ) VALUES (
            session.id, session.owner_id, session.requested_by, session.door, session.mode, session.status,
            session.provider, session.categories, session.account_id, session.multiple, session.policy_rule,
            session.created_at, session.expires_at
        );
    ELSIF is_first THEN
        DELETE FROM owners o WHERE o.owner_id = session.owner_id;
    END IF;
END
$function$
"""


def upgrade() -> None:
    """Create the function; SQLite has none, and one writer."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute(_OPEN)


def downgrade() -> None:
    """Drop the function."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION open_connect_session(jsonb, text, timestamptz, integer, integer)")
