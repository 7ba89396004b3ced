"""`python -m app` is `broker`."""

from app.cli.main import main

main()
