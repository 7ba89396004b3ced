/** Measures what a page loads from the start, as a bundler makes it, and fails when that outgrows its budget. */

import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { build } from "vite";

const here = join(dirname(fileURLToPath(import.meta.url)), "..");
const PAGES = [
  { entries: ["index"], budget: 6 },
  { entries: ["index", "element"], budget: 12 },
  { entries: ["index", "react"], budget: 13 },
  { entries: ["testing"], budget: 2 },
];

for (const { entries, budget } of PAGES) {
  const [{ output }] = await build({
    root: here,
    configFile: false,
    logLevel: "error",
    build: {
      write: false,
      lib: { entry: entries.map((name) => join(here, "dist", `${name}.js`)), formats: ["es"] },
      // A library keeps its blanks and line ends; a page that is built with it does not.
      rolldownOptions: { external: [/^react/, /webcomponent/], output: { minify: true } },
    },
  });
  // What is imported on demand is another file: here counts what is there from the start.
  const chunks = new Map(output.filter((file) => file.type === "chunk").map((chunk) => [chunk.fileName, chunk]));
  const loaded = new Set([...chunks.values()].filter((chunk) => chunk.isEntry));
  for (const chunk of loaded) for (const name of chunk.imports) if (chunks.has(name)) loaded.add(chunks.get(name));
  const bytes = [...loaded].reduce((sum, chunk) => sum + gzipSync(chunk.code, { level: 9 }).length, 0);
  console.log(`${entries.join(" and ")}: ${(bytes / 1024).toFixed(2)} KB gzipped (at most ${budget})`);
  if (bytes > budget * 1024) process.exitCode = 1;
}
