// openapi-fetch over types of openapi-typescript: what a backend does first, against a running broker.
import createClient from "openapi-fetch";
import type { paths } from "./types";

const [url, key] = process.argv.slice(2);
const client = createClient<paths>({ baseUrl: url, headers: { authorization: `Bearer ${key}` } });

const opened = await client.POST("/v1/owners/{owner_id}/connect-sessions", {
  params: { path: { owner_id: "org_acme" } },
  body: { provider: "bamboohr" },
});
const listed = await client.GET("/v1/accounts", { params: { query: { needs_reauth: false } } });
const events = await client.GET("/v1/events", { params: { query: { after: "0" } } });
const again = await client.GET("/v1/events", { params: { query: { after: events.data?.next_cursor ?? "0" } } });
const refused = await client.GET("/v1/accounts/{account_id}", { params: { path: { account_id: "1" } } });

console.log(
  JSON.stringify({
    mode: opened.data?.mode,
    accounts: listed.data?.data.map((account) => account.account_id),
    kinds: events.data?.data.map((entry) => entry.kind),
    more: again.data?.data.length,
    refused: refused.error && "code" in refused.error ? refused.error.code : null,
  }),
);
