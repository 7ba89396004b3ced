/** The vendor's web component: 600 KB on the wire, so it is loaded when somebody connects and not before. */

import { load } from "./load.js";
import type { HubProps, ShownHub } from "./view-types.js";

/** Loads the component once; what failed can be tried again. */
export async function loadWebComponent(): Promise<void> {
  if (!customElements.get("stackone-hub")) await load(() => import("./vendor/webcomponent.js"));
}

/** Shows the vendor's web component. */
export async function webComponent(mount: HTMLElement, props: HubProps): Promise<ShownHub> {
  await loadWebComponent();
  const life = new AbortController();
  const hub = document.createElement("stackone-hub") as HTMLElement & { themeObject?: object };
  const attributes: Record<string, string | null> = {
    token: props.token,
    "base-url": props.baseUrl,
    "app-url": props.appUrl,
    "account-id": props.accountId,
    theme: props.theme,
    height: "34rem",
    "show-footer-links": "false",
  };
  for (const [name, value] of Object.entries(attributes)) if (value !== null) hub.setAttribute(name, value);
  if (props.hubTheme) hub.themeObject = props.hubTheme;
  hub.addEventListener("success", (event) => props.onSuccess((event as CustomEvent<{ id: string; provider: string }>).detail));
  // It has no boundary of its own: whatever it throws while drawing empties it, and is reported to the window only.
  const look = (event: ErrorEvent) => {
    setTimeout(() => !life.signal.aborted && hub.childElementCount === 0 && props.onCrash(event.error));
  };
  addEventListener("error", look, { signal: life.signal });
  // Attributes first, then into the page: a Hub that gets its token late never reads its settings.
  mount.append(hub);
  return {
    setTheme: (theme) => hub.setAttribute("theme", theme),
    remove() {
      life.abort();
      hub.remove();
    },
  };
}
