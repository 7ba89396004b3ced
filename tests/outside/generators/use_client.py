"""The package that openapi-python-client generates, against a running broker."""

import json
import sys

from broker_client import AuthenticatedClient
from broker_client.api.service import create_owner_connect_session, get_account, list_accounts, list_events
from broker_client.models import OwnerSessionRequest

url, key = sys.argv[1:]
with AuthenticatedClient(base_url=url, token=key) as client:
    opened = create_owner_connect_session.sync("org_acme", client=client, body=OwnerSessionRequest(provider="bamboohr"))
    listed = list_accounts.sync(client=client, needs_reauth=False)
    events = list_events.sync(client=client, after="0")
    again = list_events.sync(client=client, after=events.next_cursor)
    refused = get_account.sync("1", client=client)
print(
    json.dumps(
        {
            "mode": opened.mode,
            "accounts": [account.account_id for account in listed.data],
            "kinds": [entry.kind for entry in events.data],
            "more": len(again.data),
            "refused": refused.code,
        }
    )
)
