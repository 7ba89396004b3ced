import type { Provider } from "./providers";

/** A monogram: the providers' own logos are theirs, and fetching them would tell others who visits this page. */
export function ProviderIcon({ provider }: { provider: Provider }) {
  return (
    <svg className="provider-icon" width="44" height="44" viewBox="0 0 44 44" aria-hidden="true">
      <rect width="44" height="44" rx="11" fill={provider.colour} />
      <text x="22" y="29.5" textAnchor="middle" fontSize="20" fontWeight="650" fill="#fff">
        {provider.name[0]}
      </text>
    </svg>
  );
}
