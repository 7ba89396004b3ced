// The rules of src/connect in their shortest form: mint when opening, a new element for each token, confirm on the
// server. What it leaves out: replacing a token that runs out, repeated tries, and telling a save from a claimed one.

const at = (id) => document.getElementById(id);
const say = (text) => {
  at("outcome").textContent = text;
};

const AWAY = "Our service cannot be reached. Check your connection and try again.";

const config = await fetch("/config.json")
  .then((answer) => answer.json())
  .catch(() => {
    say(AWAY);
    throw new Error("no /config.json: the demo is not running");
  });
const user = new URLSearchParams(location.search).get("user") ?? "alice";
let opened = null;

// Your product knows who is signed in; the demo's identity provider just believes it.
async function userToken() {
  const answer = await fetch("/demo/sign-in", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ user }),
  });
  return (await answer.json()).token;
}

async function broker(path, body, signal) {
  const answer = await fetch(config.broker + path, {
    method: "POST",
    headers: { authorization: `Bearer ${await userToken()}`, "content-type": "application/json" },
    body: JSON.stringify(body ?? {}),
    signal,
  });
  const content = await answer.json();
  if (!answer.ok) throw new Error(content.detail ?? content.title ?? "The broker does not answer.");
  return content;
}

async function open(request) {
  opened?.abort();
  const life = (opened = new AbortController());
  at("hub").replaceChildren();
  say("Opening…");
  try {
    const session = await broker("/v1/connect-sessions", request, life.signal);
    const hub = document.createElement("stackone-hub");
    hub.setAttribute("token", session.token);
    hub.setAttribute("base-url", config.stackone);
    hub.setAttribute("app-url", config.appUrl);
    hub.setAttribute("show-footer-links", "false");
    hub.setAttribute("theme", matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
    if (session.account_id) hub.setAttribute("account-id", session.account_id);
    hub.addEventListener("success", (event) => confirm(event.detail.id, life.signal));
    hub.addEventListener("close", () => hub.remove());
    // Attributes first, then into the page: a Hub that gets its token late never reads its settings.
    at("hub").replaceChildren(hub);
    say("");
  } catch (error) {
    if (!life.signal.aborted) say(error instanceof TypeError ? AWAY : error.message);
  }
}

async function confirm(accountId, signal) {
  at("hub").replaceChildren();
  say("Checking that everything was saved…");
  try {
    const account = await broker(`/v1/linked-accounts/${encodeURIComponent(accountId)}/confirm`, {}, signal);
    say(account.usable ? `${account.provider} is connected.` : `${account.provider} does not accept these credentials.`);
  } catch (error) {
    if (!signal.aborted) say(`Not confirmed: ${error instanceof TypeError ? AWAY : error.message}`);
  }
}

at("who").textContent = user;
for (const button of document.querySelectorAll("button")) {
  button.disabled = false;
  button.addEventListener("click", () => open(button.dataset.provider ? { provider: button.dataset.provider } : {}));
}
