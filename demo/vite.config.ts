import { copyFileSync, mkdirSync } from "node:fs";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import react from "@vitejs/plugin-react";
import { defineConfig, type Plugin } from "vite";

const here = (path: string) => fileURLToPath(new URL(path, import.meta.url));

/** Puts the vendor's web component beside the page, unmodified: the example page and auth links load it from there. */
function copyWebComponent(): Plugin {
  return {
    name: "copy-web-component",
    apply: "build",
    closeBundle() {
      const vendor = createRequire(import.meta.url).resolve("@stackone/hub").replace(/dist[\\/].*$/, "dist/webcomponent.js");
      mkdirSync(here("dist/hub"), { recursive: true });
      copyFileSync(vendor, here("dist/hub/webcomponent.js"));
    },
  };
}

export default defineConfig({
  plugins: [react(), copyWebComponent()],
  build: {
    // The Hub is one chunk of 1.2 MB, half of it fonts; it is loaded when somebody connects and not before.
    chunkSizeWarningLimit: 2000,
    modulePreload: { polyfill: false },
  },
});
