import { useEffect, useRef } from "react";
import { USERS, type DemoUser } from "./users";

interface SignInProps {
  isInvited: boolean;
  onChoose: (user: DemoUser) => void;
}

export function SignIn({ isInvited, onChoose }: SignInProps) {
  const heading = useRef<HTMLHeadingElement>(null);
  // Who signed out pressed a button that is gone.
  useEffect(() => {
    if (document.activeElement === document.body) heading.current?.focus({ preventScroll: true });
  }, []);

  return (
    <section className="sign-in" aria-labelledby="sign-in-title">
      <h1 id="sign-in-title" ref={heading} tabIndex={-1}>
        Who are you today?
      </h1>
      {isInvited && <p className="banner plain">You were invited to connect a tool. Sign in to go on.</p>}
      <p className="lead">
        A stand-in for your product’s own sign-in. Each person gets a real signed token; whose data they see follows from
        it, and from nothing the page says.
      </p>
      <ul className="people">
        {USERS.map((user) => (
          <li key={user.id}>
            <button type="button" className="person" onClick={() => onChoose(user)}>
              <span className="face" aria-hidden="true">
                {user.name[0]}
              </span>
              <span className="person-text">
                <b>Continue as {user.name}</b>
                <span>{user.organisation}</span>
                <small>{user.note}</small>
              </span>
            </button>
          </li>
        ))}
      </ul>
    </section>
  );
}
