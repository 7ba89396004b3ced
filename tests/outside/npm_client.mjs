// The vendor's npm client does what it can do for a broker, and prints what it was told as one line of JSON.
import { StackOne } from "@stackone/stackone-client-ts";

const [serverURL, accountId] = process.argv.slice(2);
const client = new StackOne({ serverURL, security: { username: "demo-key", password: "" } });
const owner = { originOwnerId: "org_1", originOwnerName: "One Ltd" };

const created = await client.connectSessions.createConnectSession({
  ...owner,
  originUsername: "ivy@one.example",
  provider: "bamboohr",
  categories: ["hris"],
  expiresIn: 600,
  metadata: { plan: "large" },
  label: "EMEA",
  multiple: true,
});
const session = created.connectSessionTokenAuthLink;
const authenticated = await client.connectSessions.authenticateConnectSession({ token: session.token });
const listed = await client.accounts.listLinkedAccounts({ ...owner, page: 1, pageSize: 5, providers: ["bamboohr"] });
const account = await client.accounts.getAccount({ id: accountId });
const updated = await client.accounts.updateAccount({
  id: accountId,
  patchAccountExternalDto: { originUsername: "eve@one.example", label: {} },
});
const deleted = await client.accounts.deleteAccount({ id: accountId });
const refused = [];
for (const call of [
  () => client.accounts.getAccount({ id: accountId }),
  () => client.connectSessions.createConnectSession({ ...owner, provider: "unheard_of" }),
]) {
  await call().catch((error) => refused.push(error.constructor.name));
}
console.log(
  JSON.stringify({
    organization: [session.organizationId, authenticated.connectSession.organizationId],
    provider: authenticated.connectSession.provider,
    listed: listed.classes.map((row) => row.id),
    read: account.linkedAccount.id,
    updated: [updated.linkedAccount.originUsername, updated.linkedAccount.label],
    deleted: deleted.linkedAccount.id,
    refused,
  }),
);
