"""A service for tools that look at it from the outside: a prepared database, two tenants of the
demo shop with rows, an operator, and a server on a free port. All of it ends with the block.

Needs DATABASE_URL, a superuser of a throwaway server (`freehold dev --database-only` sets it).
"""

import contextlib
import json
import os
import pathlib
import secrets
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid

PROJECT = pathlib.Path(__file__).resolve().parent.parent
BASELINE = PROJECT / "demo" / "migrations"
ANALYTICS = PROJECT / "demo" / "analytics"
TENANTS = ("acme", "globex")
OPERATOR = "operator@freehold.example"
PASSWORD = "freehold-outside"
READY_SECS = 30
STOP_SECS = 20

CUSTOMERS = [
    {"id": str(uuid.uuid4()), "full_name": name, "email": f"{name.split()[0].lower()}@example.com", "city": city, "country_code": code}
    for name, city, code in [("Ada Lind", "Berlin", "DE"), ("Bo Chen", "Boston", "US"), ("Cy Moreau", "Lyon", "FR")]
]
PRODUCTS = [
    {"sku": sku, "name": name, "price_cents": price, "stock": stock}
    for sku, name, price, stock in [("HAMMER", "Hammer", 1890, 5), ("DRILL", "Drill", 8900, 0), ("TAPE", "Tape", 990, 12)]
]


class Service:
    """Where the service is, and the access tokens of those who may use it."""

    def __init__(self, url):
        self.url = url
        self.tenant_token = self.sign_in(f"owner@{TENANTS[0]}.example")
        self.operator_token = self.sign_in(OPERATOR)

    def sign_in(self, email):
        answer = self.call("POST", "/v1/auth/login", {"email": email, "password": PASSWORD})
        return answer["access_token"]

    def insert(self, table, rows, token):
        self.call("POST", f"/v1/data/{table}", rows, token)

    def call(self, method, path, body, token=None):
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), method=method)
        request.add_header("Content-Type", "application/json")
        if token:
            request.add_header("Authorization", f"Bearer {token}")
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            raise SystemExit(f"{method} {path}: {error.code} {error.read().decode()}") from None
        return json.loads(text) if text else None


@contextlib.contextmanager
def serve(binary):
    """Prepares the database of DATABASE_URL with `binary`, serves it, and yields a Service."""
    environment = prepare(binary)
    port = free_port()
    log = PROJECT / ".freehold" / "outside" / "server.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    environment["LISTEN"] = f"127.0.0.1:{port}"
    with open(log, "wb") as output:
        server = subprocess.Popen([binary, "serve"], env=environment, stdout=output, stderr=output)
    try:
        service = Service(wait_until_ready(server, f"http://127.0.0.1:{port}", log))
        for slug in TENANTS:
            token = service.sign_in(f"owner@{slug}.example")
            service.insert("customers", CUSTOMERS, token)
            service.insert("products", PRODUCTS, token)
            service.insert("orders", [{"customer_id": row["id"]} for row in CUSTOMERS], token)
        run(binary, "analytics", "run", env=environment)
        yield service
        if server.poll() is not None:
            raise SystemExit(f"the server ended by itself with code {server.returncode}; see {log}")
    finally:
        server.terminate()
        try:
            server.wait(STOP_SECS)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def prepare(binary):
    """Roles, catalog, baseline, tenants and operator; returns the server's environment."""
    admin = os.environ["DATABASE_URL"]
    # Settings of the caller's own are none of this service's.
    environment = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    passwords = {role: secrets.token_hex(16) for role in ("app", "owner", "analytics")}
    run(binary, "init", "--baseline", str(BASELINE), env=environment | {
        "DATABASE_URL": admin,
        "FREEHOLD_APP_PASSWORD": passwords["app"],
        "FREEHOLD_OWNER_PASSWORD": passwords["owner"],
        "FREEHOLD_ANALYTICS_PASSWORD": passwords["analytics"],
    })
    environment |= {
        "DATABASE_URL": as_role(admin, "freehold_app", passwords["app"]),
        "DATABASE_OWNER_URL": as_role(admin, "freehold_owner", passwords["owner"]),
        "DATABASE_ANALYTICS_URL": as_role(admin, "freehold_analytics", passwords["analytics"]),
        "FREEHOLD_PASSWORD": PASSWORD,
    }
    for slug in TENANTS:
        run(binary, "tenant", "create", slug, "--owner", f"owner@{slug}.example", env=environment)
    run(binary, "operator", "create", OPERATOR, env=environment)
    run(binary, "analytics", "apply", "--folder", str(ANALYTICS), env=environment)
    return environment | {
        "JWT_SECRET": secrets.token_hex(32),
        # A tool that guesses all the time is to meet the service, not its limiter.
        "SIGN_IN_PER_EMAIL": "1000000",
        "SIGN_IN_PER_CLIENT": "1000000",
        "ACCESS_TOKEN_SECS": "3600",
        "LOG_LEVEL": "warn",
        "NO_COLOR": "1",
    }


def run(binary, *arguments, env):
    done = subprocess.run([binary, *arguments], env=env, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"freehold {' '.join(arguments)} failed: {done.stderr or done.stdout}")


def as_role(url, role, password):
    parts = urllib.parse.urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urllib.parse.urlunsplit(parts._replace(netloc=f"{role}:{password}@{host}"))


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_until_ready(server, url, log):
    ends = time.monotonic() + READY_SECS
    while time.monotonic() < ends and server.poll() is None:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(url + "/readyz", timeout=2).close()
            return url
        time.sleep(0.1)
    raise SystemExit(f"the server is not ready; see {log}")
