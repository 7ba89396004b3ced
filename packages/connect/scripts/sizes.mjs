/** Measures what a page loads, as a bundler makes it, and fails when the core outgrows its budget. */

import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { build } from "vite";

const here = join(dirname(fileURLToPath(import.meta.url)), "..");
const BUDGETS = { index: 6, element: 12, react: 12, testing: 2 };

for (const [name, budget] of Object.entries(BUDGETS)) {
  const [{ output }] = await build({
    root: here,
    configFile: false,
    logLevel: "error",
    build: {
      write: false,
      lib: { entry: join(here, "dist", `${name}.js`), formats: ["es"] },
      rollupOptions: { external: [/^react/, /webcomponent/] },
      minify: true,
    },
  });
  // What is imported on demand is another file: here counts what is there from the start.
  const chunks = new Map(output.filter((file) => file.type === "chunk").map((chunk) => [chunk.fileName, chunk]));
  const loaded = new Set([...chunks.values()].filter((chunk) => chunk.isEntry));
  for (const chunk of loaded) for (const name of chunk.imports) if (chunks.has(name)) loaded.add(chunks.get(name));
  const bytes = [...loaded].reduce((sum, chunk) => sum + gzipSync(chunk.code, { level: 9 }).length, 0);
  console.log(`${name}: ${(bytes / 1024).toFixed(2)} KB gzipped (at most ${budget})`);
  if (bytes > budget * 1024) process.exitCode = 1;
}
