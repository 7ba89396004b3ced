/** Loading what is needed on demand, also on a page that is older than the server's files. */

let tries = 0;

/**
 * Imports a module. Chromium and older Firefox remember one that could not be loaded for as long as the page lives: what
 * fails is asked for under another address at once, and each time after that. Safari remembers none, and names no address.
 */
export async function load<Module>(ask: () => Promise<Module>): Promise<Module> {
  try {
    return await ask();
  } catch (error) {
    const [address] = /https?:\/\/[^\s'"]+\.m?js[^\s'"]*/.exec(String(error)) ?? [];
    if (address === undefined) return ask();
    tries += 1;
    const module = (await import(/* @vite-ignore */ /* webpackIgnore: true */ /* turbopackIgnore: true */ `${address}?again=${tries}`)) as Module;
    // Some bundlers' files are scripts that register what they hold, and only the bundler's own way leads to it.
    return Object.keys(module as object).length > 0 ? module : await ask().catch(() => module);
  }
}
