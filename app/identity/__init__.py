"""Who is calling: end users (JWT), services (keys or machine tokens), and nothing a caller merely claims to be."""
