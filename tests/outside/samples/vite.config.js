import { svelte } from "@sveltejs/vite-plugin-svelte";
import react from "@vitejs/plugin-react";
import vue from "@vitejs/plugin-vue";

const isCustomElement = (tag) => tag.startsWith("connect-");
const plugins = {
  react: () => react(),
  react18: () => react(),
  vue: () => vue({ template: { compilerOptions: { isCustomElement } } }),
  svelte: () => svelte(),
};

/** Each sample has its name as its mode, and stands in a folder of that name. */
export default ({ mode }) => ({ root: mode, base: `/${mode}/dist/`, plugins: [(plugins[mode] ?? plugins.svelte)()] });
