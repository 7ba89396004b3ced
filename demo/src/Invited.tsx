import type { LinkedAccount } from "@connect-broker/connect";
import { useConnect, useInvitation } from "@connect-broker/connect/react";
import { useEffect, useRef } from "react";
import { providerFor, useCatalogue } from "./providers";

/** What an invitation's link leads to. */
export function Invited({ onLeave }: { onLeave: (account: LinkedAccount | null) => void }) {
  const mount = useRef<HTMLDivElement>(null);
  const heading = useRef<HTMLHeadingElement>(null);
  const { state, close } = useInvitation({ mount, onLinked: onLeave, onCancelled: () => onLeave(null) });
  useEffect(() => heading.current?.focus({ preventScroll: true }), []);

  const catalogue = useCatalogue(useConnect());
  const provider = state?.phase === "open" ? state.session.provider : null;
  return (
    <section className="connect-view" aria-labelledby="invited-title">
      <button type="button" className="back" onClick={close}>
        <span aria-hidden="true">←</span> All integrations
      </button>
      <h1 id="invited-title" ref={heading} tabIndex={-1}>
        {provider === null ? "You were invited to connect a tool" : `Connect ${providerFor(provider, catalogue).name}`}
      </h1>
      <p className="lead">Your credentials go to the provider through StackOne; this page and its broker never see them.</p>
      <div className="hub" ref={mount} />
    </section>
  );
}
