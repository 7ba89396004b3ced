"""From a finished form or popup to a linked account."""

from collections.abc import Mapping

from sandbox.clock import iso
from sandbox.errors import ApiError
from sandbox.stackone.accounts import Account, LinkOrder
from sandbox.stackone.connectors import Connector
from sandbox.stackone.forms import Submission, submit
from sandbox.stackone.project import Project
from sandbox.stackone.sessions import ConnectSession


def offered(project: Project, session: ConnectSession, integration_id: str) -> Connector:
    """Return a connector that the session may open. Raises ApiError 404, or 412 for a disabled one."""
    found = [c for c in project.connectors_for(session) if c.integration_id == integration_id]
    if not found:
        raise ApiError(404, "Integration not found")
    if not found[0].active:
        raise ApiError(412, "The integration is disabled", extra={"errorCode": "AccountIntegrationInactiveError"})
    return found[0]


def link_submitted(
    project: Project,
    session: ConnectSession,
    connector: Connector,
    values: Mapping[str, object],
    *,
    account_id: str | None = None,
) -> Account:
    """Link what a session's holder submitted; the session, not the form, decides which account that is."""
    target = session.account_id or account_id
    if target is not None:
        edited: Account | None = project.accounts.get(target)
    elif session.multiple:
        edited = None
    else:
        edited = project.accounts.existing(session.origin_owner_id, session.origin_owner_name, connector.provider)
    kept = {**edited.setup_information, **edited.secrets} if edited else {}
    submission = submit(connector, session.type, values, kept)
    return project.accounts.link(
        LinkOrder(
            provider=connector.provider,
            origin_owner_id=session.origin_owner_id,
            origin_owner_name=session.origin_owner_name,
            account_id=target,
            multiple=session.multiple,
            changes=_changes(project, session, connector, submission),
        )
    )


def _changes(
    project: Project, session: ConnectSession, connector: Connector, submission: Submission
) -> dict[str, object]:
    optional = {"origin_username": session.origin_username, "label": session.label}
    return {
        "setup_information": dict(submission.setup_information),
        "secrets": dict(submission.secrets),
        "metadata": dict(session.metadata),
        "type": session.type,
        "shared": session.shared,
        "connector_profile_id": connector.integration_id,
        **_health(project, submission),
        **{name: value for name, value in optional.items() if value is not None},
    }


def _health(project: Project, submission: Submission) -> dict[str, object]:
    if not submission.is_broken:
        return {"status": "active", "status_reasons": []}
    # The Hub reports success for such an account all the same.
    reason = {
        "code": "invalid_credentials",
        "description": "The provider rejected these credentials",
        "timestamp": iso(project.clock()),
    }
    return {"status": "error", "status_reasons": [reason]}
