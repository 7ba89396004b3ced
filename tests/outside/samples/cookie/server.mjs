// The server of a product around the route of docs/frontend.md: a sign-in, a session, and the route. server.mjs PORT
import { createServer } from "node:http";
import { POST } from "./route.mjs";

const alice = { user: { orgId: "org_acme", email: "alice@acme.example" } };
const server = createServer(async (request, response) => {
  if (request.url === "/login") {
    response.writeHead(303, { location: "/", "set-cookie": "session=alice; Path=/; HttpOnly; SameSite=Lax" }).end();
    return;
  }
  const session = request.headers.cookie?.includes("session=alice") ? alice : null;
  globalThis.auth = async () => session;
  const answer = await POST();
  response.writeHead(answer.status, Object.fromEntries(answer.headers)).end();
});
server.listen(Number(process.argv[2]), "127.0.0.1");
