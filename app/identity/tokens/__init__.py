"""JWTs of every configured issuer: keys, verification, and what the claims say."""
