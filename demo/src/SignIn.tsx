import { USERS, type DemoUser } from "./users";

export function SignIn({ onChoose }: { onChoose: (user: DemoUser) => void }) {
  return (
    <section className="sign-in" aria-labelledby="sign-in-title">
      <h1 id="sign-in-title">Who are you today?</h1>
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
