import { copyFileSync, mkdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import react from "@vitejs/plugin-react";
import type { Plugin } from "vite";
import { defineConfig } from "vitest/config";

const here = (path: string) => fileURLToPath(new URL(path, import.meta.url));

/** Puts the vendor's web component beside the page, unmodified: the example page and auth links load it from there. */
function copyWebComponent(): Plugin {
  return {
    name: "copy-web-component",
    apply: "build",
    closeBundle() {
      mkdirSync(here("dist/hub"), { recursive: true });
      copyFileSync(here("node_modules/@stackone/hub/dist/webcomponent.js"), here("dist/hub/webcomponent.js"));
    },
  };
}

export default defineConfig({
  plugins: [react(), copyWebComponent()],
  build: {
    // The Hub is one chunk of 1.6 MB, most of it fonts; it is loaded when somebody connects and not before.
    chunkSizeWarningLimit: 2000,
    modulePreload: { polyfill: false },
  },
  test: {
    environment: "jsdom",
    setupFiles: ["src/test-setup.ts"],
    restoreMocks: true,
  },
});
