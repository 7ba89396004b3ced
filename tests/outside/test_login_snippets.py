"""Each endpoint of docs/user-tokens.md, as it stands there, run against `broker-demo`: its token works.

Express, Django and PHP are the real ones. Around the Rails and Auth.js ones stands what the snippet itself names
(`current_user`, `render`; `auth`), since neither framework comes quickly; Laravel's is not run.
"""

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.checks.pages import ROOT
from tests.e2e.demo_process import Demo, running_demo
from tests.neighbours.conftest import program

pytestmark = pytest.mark.timeout(1200)

_SNIPPET = re.compile(r"^### ([^\n]+)\n+```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SNIPPETS = dict(_SNIPPET.findall((ROOT / "docs/user-tokens.md").read_text(encoding="utf-8")))
_NODE = """
const answers = [];
for (const cookie of ["", "session=alice"]) {
  const answer = await %s;
  answers.push({ status: answer.status, body: answer.status === 401 ? {} : await answer.json() });
}
console.log(JSON.stringify(answers));
"""


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """Start the demo."""
    with running_demo(tmp_path_factory.mktemp("demo")) as started:
        yield started


def said(demo: Demo, command: Sequence[str | Path], folder: Path) -> list[dict[str, Any]]:
    """Run a program with the settings that the snippets read; return its two answers: to nobody, and to Alice."""
    environment = {**os.environ, "BROKER": demo["broker"], "SERVICE_KEY": demo["service_key"]}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return list(json.loads(done.stdout))


def opens(demo: Demo, answers: Sequence[dict[str, Any]], refusal: int = 401) -> None:
    """Check that nobody got a token, and that Alice's opens what is her owner's."""
    nobody, alice = answers
    assert (nobody["status"], alice["status"]) == (refusal, 201), alice
    assert "token" not in nobody["body"]
    headers = {"authorization": f"Bearer {alice['body']['token']}"}
    opened = httpx2.post(f"{demo['broker']}/v1/connect-sessions", json={"provider": "bamboohr"}, headers=headers)
    assert opened.status_code == 201, opened.text
    session = f"{demo['broker']}/v1/owners/org_acme/connect-sessions/{opened.json()['id']}"
    asked = httpx2.get(session, headers={"authorization": f"Bearer {demo['service_key']}"})
    assert asked.json()["requested_by"] == "user:alice@acme.example@urn:connect-broker:user-tokens"


def test_every_backend_that_the_page_shows_is_known_here() -> None:
    assert set(SNIPPETS) == {"Express", "Auth.js (Next.js route handler)", "Django", "Rails", "Laravel", "PHP"}


def test_express(demo: Demo, tmp_path: Path) -> None:
    for name in ("package.json", "package-lock.json"):
        (tmp_path / name).write_bytes((ROOT / "bench/contenders/express" / name).read_bytes())
    npm = program("npm")
    # None of what the snippet uses is compiled; what the benchmark uses is, for minutes on a slow machine.
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=300)
    (tmp_path / "use.mjs").write_text(
        """
        import express from "express";
        const app = express();
        function requireLogin(req, res, next) {
          if (req.headers.cookie !== "session=alice") return res.sendStatus(401);
          req.user = { orgId: "org_acme", email: "alice@acme.example" };
          next();
        }
        """
        + SNIPPETS["Express"]
        + "const server = app.listen(0, '127.0.0.1'); await new Promise((open) => server.on('listening', open));"
        + _NODE % "fetch(`http://127.0.0.1:${server.address().port}/connect-token`, { headers: { cookie } })"
        + "server.close(); server.closeAllConnections();"
    )
    opens(demo, said(demo, ["node", "use.mjs"], tmp_path))


def test_auth_js(demo: Demo, tmp_path: Path) -> None:
    user = '{ user: { orgId: "org_acme", email: "alice@acme.example" } }'
    (tmp_path / "use.mjs").write_text(
        f"let asked = '';\nconst auth = async () => (asked ? {user} : null);\n"
        + SNIPPETS["Auth.js (Next.js route handler)"]
        + _NODE % "(asked = cookie, GET())"
    )
    opens(demo, said(demo, [program("node"), "use.mjs"], tmp_path))


def test_django(demo: Demo, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True, timeout=600)
    python = tmp_path / "venv/bin/python"
    lock = ROOT / "requirements-backends.lock"
    install: list[str | Path] = [
        "-m",
        "pip",
        "install",
        "-qq",
        "--disable-pip-version-check",
        "--require-hashes",
        "-r",
        lock,
    ]
    subprocess.run([python, *install], check=True, timeout=200)
    (tmp_path / "use.py").write_text(
        """
import json, os
from types import SimpleNamespace
from urllib.parse import quote
import django, requests
from django.conf import settings
settings.configure(BROKER=os.environ["BROKER"], SERVICE_KEY=os.environ["SERVICE_KEY"], ALLOWED_HOSTS=["*"],
                   LOGIN_URL="/login", ROOT_URLCONF=(),
                   INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth"])
django.setup()
from django.contrib.auth.decorators import login_required
from django.http import JsonResponse
from django.test import RequestFactory
"""
        + SNIPPETS["Django"]
        + """
answers = []
for user in (SimpleNamespace(is_authenticated=False),
             SimpleNamespace(is_authenticated=True, org_id="org_acme", email="alice@acme.example")):
    request = RequestFactory().get("/connect-token")
    request.user = user
    answer = connect_token(request)
    answers.append({"status": answer.status_code, "body": json.loads(answer.content or "{}")})
assert answer.headers["Cache-Control"] == "no-store"
print(json.dumps(answers))
"""
    )
    opens(demo, said(demo, [python, "use.py"], tmp_path), refusal=302)


def test_rails(demo: Demo, tmp_path: Path) -> None:
    (tmp_path / "use.rb").write_text(
        """
require "erb"; require "json"; require "net/http"; require "uri"
User = Struct.new(:org_id, :email)
class Controller
  attr_reader :shown
  def current_user = User.new("org_acme", "alice@acme.example")
  def response = (@response ||= Struct.new(:headers).new({}))
  def render(json:, status:) = @shown = { status: Integer(status), body: JSON.parse(json) }
"""
        + SNIPPETS["Rails"]
        + """
end
asked = Controller.new
asked.connect_token
# Who is nobody is turned away by the login, before the action.
puts JSON.generate([{ status: 401, body: {} }, asked.shown])
"""
    )
    opens(demo, said(demo, [program("ruby"), "use.rb"], tmp_path))


def test_php(demo: Demo, tmp_path: Path) -> None:
    (tmp_path / "login.php").write_text(
        "<?php session_start(); $_SESSION['user'] = ['org_id' => 'org_acme', 'email' => 'alice@acme.example'];"
    )
    (tmp_path / "connect-token.php").write_text("<?php\n" + SNIPPETS["PHP"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    environment = {**os.environ, "BROKER": demo["broker"], "SERVICE_KEY": demo["service_key"]}
    command = [program("php"), "-d", f"session.save_path={tmp_path}", "-S", address]
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        try:
            assert "started" in server.stderr.readline()
            with httpx2.Client(base_url=f"http://{address}") as browser:
                nobody = browser.get("/connect-token.php")
                browser.get("/login.php")
                alice = browser.get("/connect-token.php")
        finally:
            server.terminate()
    assert alice.headers["cache-control"] == "no-store"
    answers = [{"status": nobody.status_code, "body": {}}, {"status": 201, "body": alice.json()}]
    opens(demo, answers)
