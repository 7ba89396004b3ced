import type { LinkedAccount } from "@connect-broker/connect";
import { useEffect, useState } from "react";
import { readBanners, type Banner } from "./product";
import type { providerFor } from "./providers";
import type { DemoUser } from "./users";

interface BannersProps {
  user: DemoUser;
  accounts: LinkedAccount[] | null;
  show: (key: string) => ReturnType<typeof providerFor>;
}

/** What this user alone can repair, as the product's backend keeps it from the broker's feed. */
export function Banners({ user, accounts, show }: BannersProps) {
  const [banners, setBanners] = useState<Banner[]>([]);
  const broken = (accounts ?? []).filter((account) => account.needs_reauth).map((account) => account.account_id);
  const text = broken.sort().join(" ");

  useEffect(() => {
    if (text === "") return undefined;
    const life = new AbortController();
    // The list says so too: a page without its banners is not worth a word.
    readBanners(user, life.signal).then(setBanners, () => {});
    return () => life.abort();
  }, [user, text]);

  return banners
    .filter((banner) => broken.includes(banner.account_id))
    .map((banner) => {
      const { name } = show(banner.provider);
      return (
        <p key={banner.account_id} className="banner problem">
          {name} needs you to sign in again.
          <a href={banner.url} aria-label={`Repair ${name}`}>
            Reconnect
          </a>
        </p>
      );
    });
}
