import { createConnect } from "/host/connect/index.js";
import "/host/connect/element.js";
import { auth, brokerUrl, stackone } from "/host/product.js";

const locale = new URLSearchParams(location.search).get("locale") ?? "en";
document.documentElement.lang = locale;
globalThis.events = [];
const connect = createConnect({ brokerUrl, stackone, auth, onEvent: ({ type }) => globalThis.events.push(type) });
const list = document.querySelector("connect-list");
list.setAttribute("locale", locale);
list.connect = connect;
document.querySelector("#connect").onclick = () => connect.open({ provider: "bamboohr" }, { locale });
