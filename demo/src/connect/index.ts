/** Copy this folder. Everything that a page needs to connect accounts through the broker comes from here. */

export { BrokerClient, type BrokerClientOptions } from "./client";
export type { ConnectSession, ConnectRequest, LinkedAccount, PolledSession, SessionStatus } from "./client";
export { ConnectHub, type ConnectHubProps } from "./ConnectHub";
export { ConnectProblem, type ProblemKind } from "./problems";
export { useConnect, type Connect, type UseConnectOptions } from "./useConnect";
export { useLinkedAccounts, type LinkedAccounts } from "./useLinkedAccounts";
export { useSessionStatus } from "./useSessionStatus";
export { describe, type Words } from "./words";
