import { useCallback, useEffect, useRef, useState } from "react";
import type { BrokerClient, ConnectRequest, LinkedAccount } from "./client";
import { ConnectFlow, type ConnectState, type HubSuccess, type Timing } from "./flow";

export interface UseConnectOptions {
  client: BrokerClient;
  request: ConnectRequest;
  onLinked: (account: LinkedAccount) => void;
  timing?: Partial<Timing>;
}

export interface Connect {
  state: ConnectState;
  retry: () => void;
  finish: () => void;
  touch: () => void;
  hubSucceeded: (success: HubSuccess) => void;
  hubWasRefused: () => void;
  hubCrashed: () => void;
}

/** Owns one token from mount to unmount; a different request starts over. Use it for a look of your own. */
export function useConnect({ client, request, onLinked, timing }: UseConnectOptions): Connect {
  const [state, setState] = useState<ConnectState>({ phase: "opening", slow: false });
  const flow = useRef<ConnectFlow | null>(null);
  // The newest callback is called, without a new session for each render.
  const linked = useRef(onLinked);
  useEffect(() => {
    linked.current = onLinked;
  });
  const requestText = JSON.stringify(request);
  const timingText = JSON.stringify(timing ?? {});

  useEffect(() => {
    const started = new ConnectFlow({
      client,
      request: JSON.parse(requestText) as ConnectRequest,
      timing: JSON.parse(timingText) as Partial<Timing>,
      onState: setState,
      onLinked: (account) => linked.current(account),
    });
    flow.current = started;
    started.start();
    return () => started.stop();
  }, [client, requestText, timingText]);

  return {
    state,
    retry: useCallback(() => flow.current?.retry(), []),
    finish: useCallback(() => flow.current?.finish(), []),
    touch: useCallback(() => flow.current?.touch(), []),
    hubSucceeded: useCallback((success: HubSuccess) => flow.current?.hubSucceeded(success), []),
    hubWasRefused: useCallback(() => flow.current?.hubWasRefused(), []),
    hubCrashed: useCallback(() => flow.current?.hubCrashed(), []),
  };
}
