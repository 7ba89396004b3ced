/** The providers that this product offers. A real one may keep such a list, or let the Hub's own picker do it. */

export interface Provider {
  key: string;
  name: string;
  what: string;
  colour: string;
}

export const PROVIDERS: readonly Provider[] = [
  { key: "bamboohr", name: "BambooHR", what: "Employees and time off", colour: "#4d7c0f" },
  { key: "workday", name: "Workday", what: "Employees and organisation", colour: "#0b63a8" },
  { key: "salesforce", name: "Salesforce", what: "Contacts and accounts", colour: "#0f6f9e" },
  { key: "sap_successfactors", name: "SAP SuccessFactors", what: "Employees and time off", colour: "#0a58b8" },
];

/** Returns how to show a provider; one that is not in the list gets a readable name. */
export function providerFor(key: string): Provider {
  const known = PROVIDERS.find((provider) => provider.key === key);
  if (known) return known;
  const name = key.replace(/[_-]+/g, " ").replace(/\b\w/g, (letter) => letter.toUpperCase());
  return { key, name, what: "", colour: "#5a6675" };
}
