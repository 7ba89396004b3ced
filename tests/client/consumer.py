"""A process that keeps a mirror, until somebody kills it: `python consumer.py URL KEY DATABASE`."""

import sys

import sqlalchemy as sa

from connect_broker_client import Broker, TryLater
from connect_broker_client.blocking_mirror import Mirror

if __name__ == "__main__":
    url, key, database = sys.argv[1:]
    with Broker(url, key) as broker:
        # Small pages, so that there is much to be killed in.
        mirror = Mirror(broker, sa.create_engine(database), "broker_accounts", page_size=3)
        print("ready", flush=True)  # noqa: T201  the test waits for it
        while True:
            try:
                mirror.follow()
            except TryLater:
                continue
