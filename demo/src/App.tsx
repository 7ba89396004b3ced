import { useCallback, useEffect, useMemo, useRef, useState } from "react";
import { ConnectProblem, createConnect, type LinkedAccount } from "@connect-broker/connect";
import { ConnectProvider } from "@connect-broker/connect/react";
import { Integrations } from "./Integrations";
import { Invited } from "./Invited";
import { SignIn } from "./SignIn";
import { useTheme, type ThemeChoice } from "./theme";
import { tokenSource, USERS, type DemoUser } from "./users";

interface Config {
  broker: string;
  stackone: string;
  appUrl: string;
}

const SIGNED_IN_KEY = "demo-user";

function nobody(): never {
  throw new ConnectProblem("signed_out");
}

export function App() {
  const [theme, choice, choose] = useTheme();
  const [config, setConfig] = useState<Config | null>(null);
  const [failed, setFailed] = useState(false);
  const [user, setUser] = useState<DemoUser | null>(rememberedUser);
  // Null until it is known; an invited visitor sees the invitation first, and signs in when it asks for that.
  const [isInvited, setInvited] = useState<boolean | null>(null);
  const [mustSignIn, setMustSignIn] = useState(false);
  const [arrived, setArrived] = useState<LinkedAccount | null>(null);

  useEffect(() => {
    const life = new AbortController();
    fetch("/config.json", { signal: AbortSignal.any([life.signal, AbortSignal.timeout(20_000)]) })
      .then(async (response) => {
        if (!response.ok) throw new Error(`${response.status}`);
        setConfig((await response.json()) as Config);
      })
      .catch(() => !life.signal.aborted && setFailed(true));
    return () => life.abort();
  }, []);

  const connect = useMemo(
    () =>
      config
        ? createConnect({
            brokerUrl: config.broker,
            auth: { bearer: user ? tokenSource(user) : nobody },
            stackone: { baseUrl: config.stackone, appUrl: config.appUrl },
          })
        : null,
    [config, user],
  );
  useEffect(() => {
    if (connect === null) return undefined;
    const look = () => setInvited((was) => connect.isInvited() || was === true);
    look();
    addEventListener("hashchange", look);
    return () => removeEventListener("hashchange", look);
  }, [connect]);

  const main = useRef<HTMLElement>(null);
  const hasJustSignedIn = useRef(false);
  // Who signed in pressed a button that is gone.
  useEffect(() => {
    if (!hasJustSignedIn.current) return;
    hasJustSignedIn.current = false;
    (main.current?.querySelector<HTMLElement>("h1") ?? main.current)?.focus({ preventScroll: true });
  }, [user]);

  const signIn = useCallback((chosen: DemoUser) => {
    hasJustSignedIn.current = true;
    rememberUser(chosen);
    setUser(chosen);
    setMustSignIn(false);
  }, []);
  const signOut = useCallback(() => {
    rememberUser(null);
    setUser(null);
    setArrived(null);
    setMustSignIn(true);
  }, []);
  const leaveInvitation = useCallback((account: LinkedAccount | null) => {
    setArrived(account);
    setInvited(false);
  }, []);

  return (
    <>
      <a className="skip" href="#main">
        Skip to content
      </a>
      <header className="bar">
        <p className="brand">
          <Mark /> Fieldnote <span>demo</span>
        </p>
        <div className="bar-end">
          <ThemeSelect choice={choice} onChoose={choose} />
          {user && (
            <>
              <p className="who">
                <b>{user.name}</b>
                <span>{user.organisation}</span>
              </p>
              <button type="button" className="quiet" onClick={signOut}>
                Sign out
              </button>
            </>
          )}
        </div>
      </header>
      <main id="main" ref={main} tabIndex={-1}>
        {failed ? (
          <div className="banner problem" role="alert">
            <h2>The demo is not running</h2>
            <p>
              This page is served by <code>make demo</code>. Start it and reload.
            </p>
          </div>
        ) : !connect || isInvited === null ? (
          <p role="status">Loading…</p>
        ) : user === null && (mustSignIn || !isInvited) ? (
          <SignIn isInvited={isInvited} onChoose={signIn} />
        ) : (
          <ConnectProvider key={user?.id} connect={connect} onSignedOut={signOut} theme={theme} closeOnBack>
            {isInvited ? (
              <Invited onLeave={leaveInvitation} />
            ) : (
              user && <Integrations user={user} arrived={arrived} onSignOut={signOut} />
            )}
          </ConnectProvider>
        )}
      </main>
    </>
  );
}

function ThemeSelect({ choice, onChoose }: { choice: ThemeChoice; onChoose: (choice: ThemeChoice) => void }) {
  return (
    <label className="theme">
      <span className="visually-hidden">Colour theme</span>
      <select value={choice} onChange={(event) => onChoose(event.target.value as ThemeChoice)}>
        <option value="system">Auto</option>
        <option value="light">Light</option>
        <option value="dark">Dark</option>
      </select>
    </label>
  );
}

function Mark() {
  return (
    <svg width="28" height="28" viewBox="0 0 32 32" aria-hidden="true">
      <rect width="32" height="32" rx="8" fill="var(--accent)" />
      <path
        d="M11 16h10M12 11a5 5 0 0 0 0 10M20 11a5 5 0 0 1 0 10"
        fill="none"
        stroke="var(--on-accent)"
        strokeWidth="2.6"
        strokeLinecap="round"
      />
    </svg>
  );
}

// Only who it was is remembered, never a token: a reload signs the same demo user in again.
function rememberUser(user: DemoUser | null): void {
  try {
    if (user) sessionStorage.setItem(SIGNED_IN_KEY, user.id);
    else sessionStorage.removeItem(SIGNED_IN_KEY);
  } catch {
    // Storage may be denied; a reload then asks again.
  }
}

function rememberedUser(): DemoUser | null {
  try {
    const id = sessionStorage.getItem(SIGNED_IN_KEY);
    return USERS.find((user) => user.id === id) ?? null;
  } catch {
    return null;
  }
}
