/** Looks at the types as every kind of importer resolves them; the package is ESM only, on purpose. */

import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { checkPackage, Package } from "@arethetypeswrong/core";

const here = join(dirname(fileURLToPath(import.meta.url)), "..");
const { name, version } = JSON.parse(readFileSync(join(here, "package.json"), "utf8"));
// The tool's own reading of a packed file keeps no more than its last piece, and ours has a large file inside.
const inside = readdirSync(join(here, "dist"), { recursive: true, withFileTypes: true })
  .filter((entry) => entry.isFile() && entry.name !== "webcomponent.js")
  .map((entry) => join(entry.parentPath ?? entry.path, entry.name));
const files = Object.fromEntries(
  [join(here, "package.json"), ...inside].map((path) => [`/node_modules/${name}/${relative(here, path)}`, readFileSync(path, "utf8")]),
);
const { problems, types } = await checkPackage(new Package(files, name, version), { excludeEntrypoints: ["./styles.css"] });
const found = problems?.filter(({ kind, resolutionKind }) => kind !== "CJSResolvesToESM" && resolutionKind !== "node10") ?? [];
if (!types || found.length > 0) {
  console.error(JSON.stringify(found, null, 2));
  process.exitCode = 1;
}
