import { useCallback, useEffect, useMemo, useState } from "react";
import { BrokerClient } from "./connect";
import { Integrations, type StackOne } from "./Integrations";
import { SignIn } from "./SignIn";
import { useTheme, type ThemeChoice } from "./theme";
import { tokenSource, USERS, type DemoUser } from "./users";

interface Config {
  broker: string;
  stackone: string;
  appUrl: string;
}

const SIGNED_IN_KEY = "demo-user";

export function App() {
  const [theme, choice, choose] = useTheme();
  const [config, setConfig] = useState<Config | null>(null);
  const [failed, setFailed] = useState(false);
  const [user, setUser] = useState<DemoUser | null>(rememberedUser);

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

  const client = useMemo(
    () => (config && user ? new BrokerClient({ baseUrl: config.broker, getToken: tokenSource(user) }) : null),
    [config, user],
  );
  const stackone = useMemo<StackOne | null>(
    () => config && { baseUrl: config.stackone, appUrl: config.appUrl },
    [config],
  );
  const signIn = useCallback((chosen: DemoUser) => {
    rememberUser(chosen);
    setUser(chosen);
  }, []);
  const signOut = useCallback(() => {
    rememberUser(null);
    setUser(null);
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
      <main id="main" tabIndex={-1}>
        {failed ? (
          <div className="banner problem" role="alert">
            <h2>The demo is not running</h2>
            <p>
              This page is served by <code>make demo</code>. Start it and reload.
            </p>
          </div>
        ) : client && stackone && user ? (
          <Integrations key={user.id} client={client} stackone={stackone} theme={theme} user={user} onSignOut={signOut} />
        ) : user ? (
          <p role="status">Loading…</p>
        ) : (
          <SignIn onChoose={signIn} />
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
