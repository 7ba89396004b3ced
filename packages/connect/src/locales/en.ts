/** English. */

import type { Words } from "../words.js";

const words: Words = {
  problems: {
    signed_out: {
      title: "You have been signed out",
      text: "Sign in again to go on. Nothing was lost.",
      again: "Sign in",
    },
    forbidden: {
      title: "You may not connect this",
      text: "Your organisation’s rules do not allow it. An administrator can change that.",
      again: "Try again",
    },
    not_found: {
      title: "This connection is gone",
      text: "It was disconnected, perhaps by a colleague. You can connect it anew from the list.",
      again: "Try again",
    },
    conflict: {
      title: "Something changed meanwhile",
      text: "A colleague may be connecting the same thing right now. Look at the list, then try again.",
      again: "Try again",
    },
    invalid: {
      title: "This page asked for something impossible",
      text: "That is our mistake, not yours. Reload the page; if it happens again, tell us.",
      again: "Try again",
    },
    too_many: {
      title: "Too many tries in a short time",
      text: "Please wait a moment.",
      again: "Try now",
    },
    unavailable: {
      title: "Connecting is not possible right now",
      text: "The service behind it is not answering. Nothing was lost, and what is connected already stays connected.",
      again: "Try now",
    },
    misconfigured: {
      title: "This is not set up correctly on our side",
      text: "We have to fix it; trying again will not help. Nothing was lost.",
      again: "Try again",
    },
    broken: {
      title: "Something went wrong on our side",
      text: "Nothing was lost. Try again; if it keeps happening, tell us.",
      again: "Try again",
    },
    offline: {
      title: "We cannot reach our service",
      text: "Check your internet connection. We keep trying.",
      again: "Try now",
    },
    blocked: {
      title: "This page may not talk to our service",
      text: "Our service answers, but does not accept this page. If it happens again, tell us. We keep trying.",
      again: "Try now",
    },
    sign_in_failed: {
      title: "We could not check that you are signed in",
      text: "The sign-in did not answer as expected. We keep trying; reloading the page may help.",
      again: "Try now",
    },
    too_slow: {
      title: "The answer takes too long",
      text: "Your connection or our service is slow at the moment. We keep trying.",
      again: "Try now",
    },
    not_invited: {
      title: "This invitation is for somebody else",
      text: "Sign in as the person whom it was sent to. If that is you, ask for a new link.",
      again: "Sign in as somebody else",
    },
    already_linked: {
      title: "Done already",
      text: "What you were invited to connect is connected. There is nothing left to do.",
      again: "Go on",
    },
    invitation_over: {
      title: "This invitation is no longer valid",
      text: "It has expired, or was taken back. Ask for a new link.",
      again: "Go on",
    },
    not_saved: {
      title: "Your changes were not saved",
      text: "The form may have said otherwise, but nothing has changed on the connection. Please enter your details again.",
      again: "Try again",
    },
    not_confirmed: {
      title: "We could not confirm the connection",
      text: "The form reported success, but we cannot find the connection. If it does not show up in the list within a minute, try again.",
      again: "Try again",
    },
    refused: {
      title: "The connection form does not open",
      text: "It was refused several times in a row. Wait a minute and try again.",
      again: "Try again",
    },
    hub_crashed: {
      title: "The connection form could not be shown",
      text: "Try again, or reload the page. If that does not help, allow this site to store data in your browser.",
      again: "Try again",
    },
  },
  notices: {
    renewed: "The form had expired, so here is a fresh one. Please enter your details again.",
    expiring: "This form is about to expire. Finish now, or a fresh one will be opened for you.",
    linked_elsewhere: "A connection has just been completed, perhaps in another window.",
  },
  opening: "Opening a secure connection form…",
  openingSlowly: "Still opening. This is taking longer than usual…",
  confirming: "Checking that everything was saved…",
  confirmingSlowly: "Still checking. This is taking longer than usual…",
  finish: "Use this connection",
  reference: "Reference for support",
  retryIn: "Trying again by itself in {seconds} s.",
  connect: "Connect {name}",
  connectAny: "Connect a tool",
  reconnect: "Reconnect",
  disconnect: "Disconnect",
  close: "Close",
  connections: "Your connections",
  loading: "Loading your connections",
  empty: "Nothing is connected yet.",
  by: "by {name}",
  connectedNow: "connected, just now",
  reconnectedNow: "reconnected, just now",
  connectedAgo: "connected {ago}",
  disconnecting: "Disconnecting…",
  isDisconnected: "{name} is disconnected.",
  disconnectTitle: "Disconnect {name}?",
  disconnectText: "Nothing more is read from {name}. You can connect it again at any time.",
  keep: "Keep it",
  needsReauth: "Needs you to reconnect",
  notUsable: "Not working",
  statuses: {
    active: "Connected",
    suspended: "Suspended",
    inactive: "Inactive",
    archived: "Archived",
  },
};

export default words;
