/** What the core hands to whatever shows a flow; only types, so that the core stays small. */

import type { ConnectRequest } from "./client.js";
import type { Connect } from "./connect.js";
import type { ConnectFlow, ConnectState, HubSuccess } from "./flow.js";
import type { ProblemKind } from "./problems.js";
import type { Words } from "./words.js";

export type Theme = "light" | "dark" | "auto";

type DeepPartial<Value> = {
  [Key in keyof Value]?: Value[Key] extends (...given: never) => unknown ? Value[Key] : Value[Key] extends object ? DeepPartial<Value[Key]> : Value[Key];
};

/** Any words of your own, in place of the locale's. */
export type WordsOverride = DeepPartial<Words>;

export interface HubProps {
  token: string;
  baseUrl: string;
  appUrl: string;
  accountId: string | null;
  theme: "light" | "dark";
  hubTheme: object | undefined;
  onSuccess: (success: HubSuccess) => void;
  onCrash: (cause: unknown) => void;
}

export interface ShownHub {
  setTheme(theme: "light" | "dark"): void;
  remove(): void;
}

/** Shows the Hub in an empty element; a new token is a new call. */
export type HubRenderer = (mount: HTMLElement, props: HubProps) => Promise<ShownHub> | ShownHub;

export interface ViewOptions {
  connect: Connect;
  mount?: HTMLElement | null;
  request: ConnectRequest;
  theme: Theme;
  hubTheme?: object;
  locale?: string;
  words?: WordsOverride;
  stackone: { baseUrl: string; appUrl: string };
  hub: HubRenderer | undefined;
  flow: ConnectFlow;
  close: () => void;
  closeOnBack?: boolean;
  onSignedOut?: (why: ProblemKind) => void;
}

export interface View {
  render(state: ConnectState): void;
  setTheme(theme: Theme): void;
  remove(): void;
}
