"""Who is calling: end users (JWT), services (keys or machine tokens), and never what a request merely says."""
