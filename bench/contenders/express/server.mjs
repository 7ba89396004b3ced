// Express 5 doing the broker's work as a careful team would: jose for tokens, fetch for StackOne, pg with named
// statements (or better-sqlite3, synchronous = FULL), one durable ledger row before StackOne is asked.
import { createHash, createHmac, randomUUID, timingSafeEqual } from "node:crypto";

import express from "express";
import { createRemoteJWKSet, jwtVerify } from "jose";

const { BENCH_PORT, BENCH_STACKONE_URL, BENCH_ISSUER, BENCH_WEBHOOK_SECRET, BENCH_DATABASE_URL } = process.env;
const keys = createRemoteJWKSet(new URL(`${BENCH_STACKONE_URL}/keys`));

const SQL = {
  mint: "INSERT INTO bench_sessions (id, owner_id, provider, created_at, expires_at) VALUES ($1, $2, $3, $4, $5)",
  list: "SELECT account_id, owner_id, provider, status, created_at FROM bench_accounts WHERE owner_id = $1 ORDER BY account_id LIMIT 51",
  get: "SELECT account_id, owner_id, provider, status, created_at FROM bench_accounts WHERE owner_id = $1 AND account_id = $2",
  confirm:
    "INSERT INTO bench_accounts (account_id, owner_id, provider, status, created_at) VALUES ($1, $2, $3, $4, $5)" +
    " ON CONFLICT (account_id) DO UPDATE SET status = excluded.status" +
    " RETURNING account_id, owner_id, provider, status, created_at",
  webhook: "INSERT INTO bench_events (digest, account_id) VALUES ($1, $2) ON CONFLICT DO NOTHING",
};

async function postgresql(url) {
  const { default: pg } = await import("pg");
  const pool = new pg.Pool({ connectionString: url, max: 20 });
  return async (name, values) => (await pool.query({ name, text: SQL[name], values })).rows;
}

async function sqlite(file) {
  const { default: Database } = await import("better-sqlite3");
  const database = new Database(file);
  database.pragma("journal_mode = WAL");
  database.pragma("synchronous = FULL");
  const statements = Object.fromEntries(
    Object.entries(SQL).map(([name, sql]) => [name, database.prepare(sql.replaceAll(/\$\d/g, "?"))]),
  );
  return async (name, values) => {
    const plain = values.map((value) => (value instanceof Date ? value.toISOString() : value));
    return statements[name].reader ? statements[name].all(plain) : (statements[name].run(plain), []);
  };
}

const run = BENCH_DATABASE_URL.startsWith("sqlite:")
  ? await sqlite(BENCH_DATABASE_URL.slice("sqlite:///".length))
  : await postgresql(BENCH_DATABASE_URL);

async function signedIn(request, response, next) {
  try {
    const token = (request.headers.authorization ?? "").slice("Bearer ".length);
    const { payload } = await jwtVerify(token, keys, { issuer: BENCH_ISSUER, audience: "connect-broker", algorithms: ["RS256"] });
    request.owner = { id: payload.org_id, name: payload.org_name };
  } catch {
    return response.status(401).json({ title: "Unauthorized" });
  }
  next();
}

const headers = { authorization: "Basic a2V5Og==", "content-type": "application/json" };
const app = express();
app.disable("x-powered-by");
app.set("etag", false);

app.get("/livez", (_request, response) => response.json({}));

app.post("/v1/connect-sessions", signedIn, express.json(), async (request, response) => {
  const { owner } = request;
  const { provider = null } = request.body ?? {};
  const id = `cs_${randomUUID()}`;
  const expires = new Date(Date.now() + 1_800_000);
  await run("mint", [id, owner.id, provider, new Date(), expires]);
  const body = JSON.stringify({ origin_owner_id: owner.id, origin_owner_name: owner.name, provider });
  const answer = await fetch(`${BENCH_STACKONE_URL}/connect_sessions`, { method: "POST", headers, body });
  if (!answer.ok) return response.status(502).json({ title: "Bad Gateway" });
  const { token } = await answer.json();
  response.status(201).json({ id, token, expires_at: expires, provider });
});

app.get("/v1/linked-accounts", signedIn, async (request, response) => {
  response.json({ data: await run("list", [request.owner.id]) });
});

app.get("/v1/linked-accounts/:id", signedIn, async (request, response) => {
  const [account] = await run("get", [request.owner.id, request.params.id]);
  if (!account) return response.status(404).json({ title: "Not Found" });
  response.json(account);
});

app.post("/v1/linked-accounts/:id/confirm", signedIn, async (request, response) => {
  const answer = await fetch(`${BENCH_STACKONE_URL}/accounts/${encodeURIComponent(request.params.id)}`, { headers });
  if (!answer.ok) return response.status(502).json({ title: "Bad Gateway" });
  const found = await answer.json();
  if (found.origin_owner_id !== request.owner.id) return response.status(404).json({ title: "Not Found" });
  const [account] = await run("confirm", [found.id, request.owner.id, found.provider, found.status, new Date(found.created_at)]);
  response.json(account);
});

app.post("/v1/webhooks/stackone", express.raw({ type: () => true }), async (request, response) => {
  const expected = Buffer.from(createHmac("sha256", BENCH_WEBHOOK_SECRET).update(request.body).digest("base64url"));
  const given = Buffer.from(request.headers["x-stackone-signature"] ?? "");
  if (expected.length !== given.length || !timingSafeEqual(expected, given)) {
    return response.status(401).json({ title: "Unauthorized" });
  }
  const digest = createHash("sha256").update(request.body).digest();
  await run("webhook", [digest, JSON.parse(request.body).account_id]);
  response.json({ outcome: "accepted" });
});

app.listen(Number(BENCH_PORT), "127.0.0.1");
