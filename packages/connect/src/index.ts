/** Everything that a page needs to connect accounts through the broker; no framework, and no DOM until you open. */

export type { Auth, BearerAsk, Connector, ConnectRequest, ConnectSession, CookieAuth, LinkedAccount, SessionStatus } from "./client.js";
export { createConnect } from "./connect.js";
export type { Connect, ConnectEvent, ConnectOptions, Flow, InvitationOptions, OpenOptions } from "./connect.js";
export type { Connections, ConnectionsState } from "./connections.js";
export type { ConnectState, LinkedMode, Notice, Timing } from "./flow.js";
export { ConnectProblem, type ProblemKind } from "./problems.js";
export type { HubProps, HubRenderer, ShownHub, Theme, WordsOverride } from "./view-types.js";
export { describe, type ProblemWords, type Words } from "./words.js";
