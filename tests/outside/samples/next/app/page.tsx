import { connection } from "next/server";
import { App } from "./App";

export default async function Page() {
  // A page with a nonce is made for each request.
  await connection();
  return <App />;
}
