// The SDK that hey-api generates, against a running broker.
import { client } from "./hey/client.gen";
import { createOwnerConnectSession, getAccount, listAccounts, listEvents } from "./hey/sdk.gen";

const [url, key] = process.argv.slice(2);
client.setConfig({ baseUrl: url, headers: { authorization: `Bearer ${key}` } });

const opened = await createOwnerConnectSession({ path: { owner_id: "org_acme" }, body: { provider: "bamboohr" } });
const listed = await listAccounts({ query: { needs_reauth: false } });
const events = await listEvents({ query: { after: "0" } });
const again = await listEvents({ query: { after: events.data?.next_cursor ?? "0" } });
const refused = await getAccount({ path: { account_id: "1" } });

console.log(
  JSON.stringify({
    mode: opened.data?.mode,
    accounts: listed.data?.data.map((account) => account.account_id),
    kinds: events.data?.data.map((entry) => entry.kind),
    more: again.data?.data.length,
    refused: refused.error && "code" in refused.error ? refused.error.code : null,
  }),
);
