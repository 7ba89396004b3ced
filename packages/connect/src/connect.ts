/** What a product's page holds: one object that opens the Hub, knows the user's connections, and ends them. */

import { BrokerClient, withoutSlash } from "./client.js";
import type { Auth, Connector, ConnectRequest, ConnectSession, LinkedAccount, SessionStatus } from "./client.js";
import { Connections } from "./connections.js";
import { ConnectFlow, type ConnectState, type LinkedMode, type Timing } from "./flow.js";
import { load } from "./load.js";
import { ConnectProblem, type ProblemKind } from "./problems.js";
import type { HubRenderer, Theme, View, ViewOptions, WordsOverride } from "./view-types.js";

export type ConnectEvent =
  | { type: "opened"; request: ConnectRequest }
  | { type: "linked"; account: LinkedAccount; mode: LinkedMode }
  | { type: "cancelled"; request: ConnectRequest }
  | { type: "renewed" }
  | { type: "problem"; problem: ConnectProblem }
  | { type: "disconnected"; accountId: string; isDone: boolean };

export interface ConnectOptions {
  /** The broker's origin, or a path of your own that is passed on to it. */
  brokerUrl: string;
  auth: Auth;
  /** Where the Hub calls (StackOne's API) and where its OAuth popup ends (StackOne's dashboard). */
  stackone?: { baseUrl?: string; appUrl?: string };
  onEvent?: (event: ConnectEvent) => void;
  /** What "Sign in" does where nothing else is said: see `OpenOptions`. */
  onSignedOut?: (why: ProblemKind) => void;
  /** Another way to show the Hub, such as `reactHub(StackOneHub)`; without it, the vendor's web component. */
  hub?: HubRenderer;
  timing?: Partial<Timing>;
  /** How long one call to the broker may take. */
  timeoutMs?: number;
  /** How often the list of connections is read while somebody looks at it. */
  everyMs?: number;
}

export interface OpenOptions {
  /** Where the Hub appears; without it, over the page. Null shows nothing: read `flow.state` instead. */
  mount?: HTMLElement | null;
  theme?: Theme;
  /** The vendor's own theme object, passed on as it is. */
  hubTheme?: object;
  locale?: string;
  words?: WordsOverride;
  /** Ends the flow. */
  signal?: AbortSignal;
  /** What "Sign in" does: once the user's access is no longer accepted, or (`not_invited`) as somebody else. */
  onSignedOut?: (why: ProblemKind) => void;
  /** Has the browser's Back close the Hub, instead of leaving the page. */
  closeOnBack?: boolean;
}

export interface InvitationOptions extends Omit<OpenOptions, "closeOnBack"> {
  /** Goes to the page that the invitation names for afterwards; by default as any link does. */
  navigate?: (url: string) => void;
}

export interface Flow {
  /** The account that the broker confirmed, or null if the user gave up. It never fails: problems can be retried. */
  readonly done: Promise<LinkedAccount | null>;
  readonly state: ConnectState;
  subscribe(listener: () => void): () => void;
  retry(): void;
  finish(): void;
  close(): void;
  setTheme(theme: Theme): void;
}

export interface Connect {
  open(request?: ConnectRequest, options?: OpenOptions): Flow;
  /** Tells whether somebody came here through an invitation's link. Takes its code out of the address. */
  isInvited(): boolean;
  /**
   * Opens what the user was invited to; null where nobody was. Who is not signed in is sent to `onSignedOut` first: the
   * code waits in this tab, for the next call after signing in.
   */
  openInvitation(options?: InvitationOptions): Flow | null;
  readonly connections: Connections;
  /** Ends a connection. False: it is on its way and takes a little longer. */
  disconnect(accountId: string, options?: { signal?: AbortSignal }): Promise<boolean>;
  /** Lists what the user may connect. */
  connectors(options?: { signal?: AbortSignal }): Promise<Connector[]>;
  /** Says how a session stands that somebody else completes, such as behind an auth link. */
  sessionStatus(id: string, options?: { signal?: AbortSignal }): Promise<SessionStatus>;
  /**
   * What was open when the page was reloaded: `open` it again, and a new token is minted. Asked once, or until it is
   * one that `isMine`. `ConnectButton` and the lists of connections do so by themselves.
   */
  interrupted(isMine?: (request: ConnectRequest) => boolean): ConnectRequest | null;
  readonly onSignedOut?: ConnectOptions["onSignedOut"];
}

const OPEN_KEY = "connect-broker-open";
/** What is reopened later than this after a reload would come as a surprise. */
const COMES_BACK_WITHIN_MS = 60_000;
const INVITED_KEY = "connect-broker-invited";
const forEver = new AbortController().signal;

/** Makes the one object that a page needs. Nothing is called until you do. */
export function createConnect(options: ConnectOptions): Connect {
  const client = new BrokerClient(options);
  const connections = new Connections(client, options.everyMs);
  const { onSignedOut } = options;
  const tell = (event: ConnectEvent) => {
    try {
      options.onEvent?.(event);
    } catch (error) {
      // Who listens has no part in what goes on.
      reportError(error);
    }
  };
  // There is one place over the page.
  let closeOther = () => {};
  const stackone = {
    baseUrl: withoutSlash(options.stackone?.baseUrl ?? "https://api.stackone.com"),
    appUrl: withoutSlash(options.stackone?.appUrl ?? "https://app.stackone.com"),
  };

  function open(request: ConnectRequest = {}, opening: OpenOptions = {}): Flow {
    return begin(request, opening, (signal) => client.openSession(request, signal), (isOpen) => noteOpen(isOpen ? request : null));
  }

  function begin(
    request: ConnectRequest,
    opening: OpenOptions,
    mint: (signal: AbortSignal) => Promise<ConnectSession>,
    note: (isOpen: boolean) => void,
  ): Flow {
    const listeners = new Set<() => void>();
    let state: ConnectState = { phase: "opening", slow: false };
    let theme = opening.theme ?? "auto";
    let view: View | null = null;
    let isOver = false;
    let settle: (account: LinkedAccount | null) => void = () => {};
    const done = new Promise<LinkedAccount | null>((resolve) => (settle = resolve));

    const flow = new ConnectFlow({
      client,
      mint,
      ...(options.timing ? { timing: options.timing } : {}),
      onState(next) {
        if (next.phase === "open" && next.notice === "renewed" && state.phase !== "open") tell({ type: "renewed" });
        if (next.phase === "failed") tell({ type: "problem", problem: next.problem });
        state = next;
        view?.render(next);
        for (const listener of [...listeners]) listener();
      },
      onLinked(account, mode) {
        connections.linked(account, mode);
        tell({ type: "linked", account, mode });
        end(account);
      },
    });

    function end(account: LinkedAccount | null): void {
      if (isOver) return;
      isOver = true;
      flow.stop();
      opening.signal?.removeEventListener("abort", close);
      note(false);
      view?.remove();
      if (account === null) tell({ type: "cancelled", request });
      settle(account);
    }

    function close(): void {
      end(null);
    }

    opening.signal?.addEventListener("abort", close);
    if (opening.signal?.aborted) close();
    else {
      if (opening.mount === undefined) {
        closeOther();
        closeOther = close;
      }
      note(true);
      tell({ type: "opened", request });
      flow.start();
      if (opening.mount !== null) {
        show().catch((cause: unknown) => {
          tell({ type: "problem", problem: new ConnectProblem("hub_crashed", { cause }) });
          close();
        });
      }
    }

    async function show(): Promise<void> {
      const { createView } = await load(() => import("./view.js"));
      if (isOver) return;
      const how: ViewOptions = { onSignedOut, ...opening, connect, request, theme, stackone, hub: options.hub, flow, close };
      view = await createView(how);
      if (isOver) return view.remove();
      view.setTheme(theme);
      view.render(state);
    }

    return {
      done,
      get state() {
        return state;
      },
      subscribe(listener) {
        listeners.add(listener);
        return () => void listeners.delete(listener);
      },
      retry: () => flow.retry(),
      finish: () => flow.finish(),
      close,
      setTheme(next) {
        theme = next;
        view?.setTheme(next);
      },
    };
  }

  forgetUnlessReloaded();

  const connect: Connect = {
    open,
    onSignedOut,
    isInvited: () => invitation() !== null,
    openInvitation(opening = {}) {
      const invited = invitation();
      if (invited === null) return null;
      const [code] = invited;
      let returnUrl: string | null = null;
      const mint = async (signal: AbortSignal) => {
        const opened = await client.openInvitation(code, signal);
        returnUrl = opened.return_url;
        return opened;
      };
      // A page that goes away to sign somebody in comes back to it.
      const note = (isOpen: boolean) => isOpen || opening.signal?.aborted || remember(INVITED_KEY, null);
      const flow = begin({}, { ...opening, closeOnBack: false }, mint, note);
      flow.subscribe(() => {
        const kind = flow.state.phase === "failed" && flow.state.problem.kind;
        if (kind === "already_linked" || kind === "invitation_over") remember(INVITED_KEY, null);
        else if (kind === "signed_out" && invitation()?.[1]) {
          remember(INVITED_KEY, [code, false]);
          (opening.onSignedOut ?? onSignedOut)?.(kind);
        }
      });
      const navigate = opening.navigate ?? ((url: string) => location.assign(url));
      void flow.done.then((account) => account && returnUrl !== null && navigate(returnUrl));
      return flow;
    },
    connections,
    async disconnect(accountId, { signal = forEver } = {}) {
      let isDone = true;
      try {
        isDone = await client.disconnect(accountId, signal);
      } catch (error) {
        // Somebody else was faster; the outcome is the one that was asked for.
        if (!(error instanceof ConnectProblem && error.kind === "not_found")) throw error;
      }
      connections.disconnected(accountId, isDone);
      tell({ type: "disconnected", accountId, isDone });
      return isDone;
    },
    connectors: ({ signal = forEver } = {}) => client.connectors(signal),
    sessionStatus: (id, { signal = forEver } = {}) => client.sessionStatus(id, signal),
    interrupted(isMine = () => true) {
      const left = leftOpen();
      if (left === null || performance.now() > COMES_BACK_WITHIN_MS || !isMine(left)) return null;
      noteOpen(null);
      return left;
    },
  };
  return connect;
}

// The code is in the fragment, which no server is sent; from here on it is in no history either.
function invitation(): [code: string, isNew: boolean] | null {
  const [, code] = /^#(inv_[\w.-]+)$/.exec(location.hash) ?? [];
  if (code !== undefined) {
    remember(INVITED_KEY, [code, true]);
    history.replaceState(history.state, "", location.pathname + location.search);
  }
  return remembered(INVITED_KEY) as [string, boolean] | null;
}

interface Open {
  request: ConnectRequest;
  /** When the page began that opened it: tells what an earlier page left from what is open in this one. */
  page: number;
}

function noteOpen(request: ConnectRequest | null): void {
  remember(OPEN_KEY, request && ({ request, page: performance.timeOrigin } satisfies Open));
}

/** Returns what was open in the page before this one. */
function leftOpen(): ConnectRequest | null {
  const open = remembered(OPEN_KEY) as Open | null;
  return open === null || open.page === performance.timeOrigin ? null : open.request;
}

// Who left by a link, or through Back, has left the Hub too, and must not find it open at the next visit.
function forgetUnlessReloaded(): void {
  // Pages are drawn on servers, too, and some of those know neither storage nor navigation.
  if (typeof document === "undefined") return;
  const [visit] = performance.getEntriesByType("navigation") as PerformanceNavigationTiming[];
  if (visit?.type !== "reload" && leftOpen() !== null) noteOpen(null);
}

// What was open is remembered for this tab, never its token.
function remember(key: string, value: unknown): void {
  try {
    if (value === null) sessionStorage.removeItem(key);
    else sessionStorage.setItem(key, JSON.stringify(value));
  } catch {
    // Storage may be denied; a reload then starts at the list.
  }
}

function remembered(key: string): unknown {
  try {
    return JSON.parse(sessionStorage.getItem(key) ?? "null");
  } catch {
    return null;
  }
}
