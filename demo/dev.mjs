/** `make dev`: everything that `make demo` starts, with hot reload on the page and on the package that it is built on. */

import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { createServer } from "vite";

const [command, ...options] = process.argv.slice(2);
const port = Number(process.env.PORT ?? 5173);
const page = `http://127.0.0.1:${port}`;
const connect = fileURLToPath(new URL("../packages/connect", import.meta.url));

// The page that is asked comes from here, so the broker accepts this origin, and sends the invited here.
const settings = [`BROKER_HTTP__ALLOWED_ORIGINS=["${page}"]`, `BROKER_INVITATIONS__PAGE_URL=${page}`];
const demo = spawn(command, ["--json", ...settings.map((setting) => `--broker-env=${setting}`), ...options], {
  stdio: ["ignore", "pipe", "inherit"],
});
demo.on("exit", (code) => process.exit(code ?? 0));
// A Ctrl-C reaches the demo by itself.
process.on("SIGINT", () => {});
process.on("SIGTERM", () => demo.kill("SIGINT"));
process.on("exit", () => demo.kill("SIGINT"));

const [line] = await once(createInterface({ input: demo.stdout }), "line");
const started = JSON.parse(line);
const server = await createServer({
  root: fileURLToPath(new URL(".", import.meta.url)),
  plugins: [
    {
      name: "package-sources",
      enforce: "pre",
      resolveId: (source) => (source.endsWith("/vendor/webcomponent.js") ? `${connect}/dist/vendor/webcomponent.js` : null),
    },
  ],
  resolve: {
    alias: [
      { find: /^@connect-broker\/connect$/, replacement: `${connect}/src/index.ts` },
      { find: /^@connect-broker\/connect\/(.*)$/, replacement: `${connect}/src/$1` },
    ],
  },
  server: {
    host: "127.0.0.1",
    port,
    strictPort: true,
    // Its own backend signs in only who comes from its own page.
    proxy: { "^/(demo/|config\\.json)": { target: started.idp, headers: { origin: started.idp } } },
  },
});
await server.listen();
console.log(`\npage      ${page}  (hot reload: demo/src, packages/connect/src)\nbroker    ${started.broker}\nstackone  ${started.stackone}`);
console.log(`alice     ${started.users.alice.token}\n\nCtrl-C stops everything.\nready`);
