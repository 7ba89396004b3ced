"""Long runs: the broker for minutes and hours beside neighbours that die. `make ha`, `make soak`."""
