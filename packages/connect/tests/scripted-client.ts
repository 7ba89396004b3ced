/** A broker whose answers the test gives, one by one, when it wants to. */

import { vi } from "vitest";
import type { BrokerClient, ConnectSession, SessionStatus } from "../src/client.js";

export interface Call {
  name: "openSession" | "sessionStatus" | "pollSession" | "confirm" | "linkedAccounts" | "disconnect";
  argument: unknown;
  signal: AbortSignal;
  answer: (value: unknown) => Promise<void>;
  refuse: (error: unknown) => Promise<void>;
}

export class ScriptedClient {
  readonly calls: Call[] = [];
  /** Answers at once where the test has nothing to say about a call. */
  readonly usual: Partial<Record<Call["name"], (argument: unknown) => unknown>> = {};

  openSession = (request: unknown, signal: AbortSignal) => this.#call("openSession", request, signal);
  sessionStatus = (id: unknown, signal: AbortSignal) => this.#call("sessionStatus", id, signal);
  pollSession = (_id: unknown, token: unknown, signal: AbortSignal) => this.#call("pollSession", token, signal);
  confirm = (id: unknown, signal: AbortSignal) => this.#call("confirm", id, signal);
  linkedAccounts = (signal: AbortSignal) => this.#call("linkedAccounts", undefined, signal);
  disconnect = (id: unknown, signal: AbortSignal) => this.#call("disconnect", id, signal);

  get client(): BrokerClient {
    return this as unknown as BrokerClient;
  }

  made(name: Call["name"]): Call[] {
    return this.calls.filter((call) => call.name === name);
  }

  last(name: Call["name"]): Call {
    const call = this.made(name).at(-1);
    if (!call) throw new Error(`no call of ${name} yet`);
    return call;
  }

  #call(name: Call["name"], argument: unknown, signal: AbortSignal): Promise<never> {
    return new Promise<never>((resolve, reject) => {
      // The promise does not end when aborted: code that forgets to look at the signal is to be caught.
      const settled = async (settle: () => void) => {
        settle();
        if (vi.isFakeTimers()) await vi.advanceTimersByTimeAsync(0);
        else await new Promise((resolve) => setTimeout(resolve, 0));
      };
      const call: Call = {
        name,
        argument,
        signal,
        answer: (value) => settled(() => resolve(value as never)),
        refuse: (error) => settled(() => reject(error)),
      };
      this.calls.push(call);
      const usual = this.usual[name];
      if (usual) {
        try {
          resolve(usual(argument) as never);
        } catch (error) {
          reject(error);
        }
      }
    });
  }
}

let minted = 0;

export function session(fields: Partial<ConnectSession> = {}): ConnectSession {
  minted += 1;
  return {
    id: `cs_${minted}`,
    token: `token-${minted}`,
    expires_at: new Date(Date.now() + 1_800_000).toISOString(),
    expires_in: 1_800,
    mode: "create",
    account_id: null,
    provider: null,
    ...fields,
  };
}

export function status(fields: Partial<SessionStatus> = {}): SessionStatus {
  // On purpose in another year than the test's clock, which may be wrong.
  const created = Date.parse("2031-01-01T00:00:00Z");
  return {
    id: "cs",
    status: "pending",
    mode: "create",
    provider: null,
    account_id: null,
    created_at: new Date(created).toISOString(),
    expires_at: new Date(created + 1_800_000).toISOString(),
    oauth_error_code: null,
    oauth_error_description: null,
    was_new: null,
    ...fields,
  };
}

export { fakeAccount as account } from "../src/testing.js";
