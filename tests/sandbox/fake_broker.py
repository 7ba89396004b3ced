"""A stand-in for `python -m app`: does what the demo expects of it, or fails the way FAKE says."""

import http.server
import json
import os
import signal
import sys

FAKE = os.environ.get("PYTHON_FAKE", "")
COMMAND = sys.argv[1]


class Ready(http.server.BaseHTTPRequestHandler):
    """Answers /readyz."""

    def do_GET(self) -> None:
        """Say whether this is ready."""
        self.send_response(503 if FAKE == "never ready" else 200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


if f"{COMMAND} fails" == FAKE:
    sys.stderr.write("this is what went wrong\n")
    sys.exit(3)
if COMMAND == "service-keys":
    sys.stdout.write("no json" if FAKE == "no key" else json.dumps({"key": "sk_fake", "argv": sys.argv[2:]}))
if COMMAND == "serve":
    sys.stdout.write("serving\n")
    sys.stdout.flush()
    if FAKE == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    http.server.HTTPServer(("127.0.0.1", int(os.environ["BROKER_HTTP__PORT"])), Ready).serve_forever()
