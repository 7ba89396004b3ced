/** Builds dist/: our modules and their types by the compiler, the vendor's web component beside them. */

import { execFileSync } from "node:child_process";
import { copyFileSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = join(dirname(fileURLToPath(import.meta.url)), "..");
const require = createRequire(import.meta.url);
const at = (...parts) => join(here, ...parts);

rmSync(at("dist"), { recursive: true, force: true });
execFileSync(process.execPath, [require.resolve("typescript/bin/tsc"), "-p", at("tsconfig.build.json")], { stdio: "inherit" });
mkdirSync(at("dist/vendor"), { recursive: true });
copyFileSync(at("src/styles.css"), at("dist/styles.css"));
copyFileSync(at("src/vendor/webcomponent.d.ts"), at("dist/vendor/webcomponent.d.ts"));

// The one change to the vendor's file: its copy of zod asks whether `new Function` works, which a strict policy reports.
const PROBE = 'try{return new Function(""),!0}catch(e){return!1}';
const hub = require.resolve("@stackone/hub").replace(/dist[\\/].*$/, "dist/webcomponent.js");
const parts = readFileSync(hub, "utf8").replace(/\n\/\/# sourceMappingURL=.*\s*$/, "\n").split(PROBE);
if (parts.length !== 2) throw new Error(`the vendor's web component has ${parts.length - 1} probes of zod, not one`);
writeFileSync(at("dist/vendor/webcomponent.js"), parts.join("return!1"));
