import type { Provider } from "./providers";

/** The logo that the catalogue names, or a monogram. A logo elsewhere is not fetched: that would tell who visits. */
export function ProviderIcon({ provider }: { provider: Provider }) {
  if (provider.logo?.startsWith("data:")) {
    return <img className="provider-icon" src={provider.logo} width="44" height="44" alt="" />;
  }
  return (
    <svg className="provider-icon" width="44" height="44" viewBox="0 0 44 44" aria-hidden="true">
      <rect width="44" height="44" rx="11" fill={colourOf(provider.key)} />
      <text x="22" y="29.5" textAnchor="middle" fontSize="20" fontWeight="650" fill="#fff">
        {provider.name[0]}
      </text>
    </svg>
  );
}

function colourOf(key: string): string {
  let sum = 0;
  for (const letter of key) sum = (sum * 31 + letter.charCodeAt(0)) % 360;
  return `hsl(${sum} 60% 32%)`;
}
