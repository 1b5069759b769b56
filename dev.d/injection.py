"""Runs sqlmap against everything that a caller may write into: filters, select, order, paging,
bodies, headers and paths. It must find nothing. Usage: injection.py FREEHOLD SECONDS [arguments of
sqlmap]

Each request is a file with `*` where sqlmap puts its payloads. sqlmap ends with 0 whatever it found,
so what it wrote down is looked at.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import time
import urllib.parse

from service import PASSWORD, PROJECT, serve

WORK = PROJECT / ".freehold" / "outside" / "sqlmap"
FOUND = "identified the following injection point"
TESTED = ("all tested parameters do not appear to be injectable", FOUND)

# Name, who asks, method, path, headers, body. A star is where payloads go.
TENANT, OPERATOR, NOBODY = "tenant", "operator", "nobody"
REQUESTS = [
    ("filter-text", TENANT, "GET", "/v1/data/customers?select=id&full_name=eq.Ada*", {}, None),
    ("filter-number", TENANT, "GET", "/v1/data/products?select=id&stock=gte.5*", {}, None),
    ("filter-list", TENANT, "GET", "/v1/data/products?select=id&sku=in.(HAMMER*,TAPE)", {}, None),
    ("filter-group", TENANT, "GET", "/v1/data/products?select=id&or=(sku.eq.TAPE*,stock.gt.9)", {}, None),
    ("filter-column", TENANT, "GET", "/v1/data/products?select=id&sku*=eq.TAPE", {}, None),
    ("filter-operator", TENANT, "GET", "/v1/data/products?select=id&stock=gte*.5", {}, None),
    ("select", TENANT, "GET", "/v1/data/products?select=sku*", {}, None),
    ("select-alias", TENANT, "GET", "/v1/data/products?select=a*:sku::text", {}, None),
    ("select-cast", TENANT, "GET", "/v1/data/products?select=sku::text*", {}, None),
    ("order", TENANT, "GET", "/v1/data/products?select=sku&order=sku*.desc", {}, None),
    ("limit", TENANT, "GET", "/v1/data/products?select=sku&limit=2*", {}, None),
    ("offset", TENANT, "GET", "/v1/data/products?select=sku&offset=1*", {}, None),
    ("table", TENANT, "GET", "/v1/data/products*?select=sku", {}, None),
    ("headers", TENANT, "GET", "/v1/data/products?select=sku",
     {"Prefer": "count=exact*", "Range": "0-1*", "Accept": "application/json*", "X-Request-Id": "a*"}, None),
    ("body-value", TENANT, "PATCH", "/v1/data/products?sku=eq.TAPE", {}, '{"name":"Tape*"}'),
    ("body-key", TENANT, "PATCH", "/v1/data/products?sku=eq.TAPE", {}, '{"name*":"Tape"}'),
    ("columns", TENANT, "POST", "/v1/data/products?columns=sku,name,price_cents*", {"Prefer": "resolution=merge-duplicates"},
     '{"sku":"TAPE","name":"Tape","price_cents":1}'),
    ("on-conflict", TENANT, "POST", "/v1/data/products?on_conflict=sku*", {"Prefer": "resolution=merge-duplicates"},
     '{"sku":"TAPE","name":"Tape","price_cents":1}'),
    ("members", TENANT, "GET", "/v1/members?after=a*&limit=5*", {}, None),
    ("member", TENANT, "DELETE", "/v1/members/3f0c5fd2-6f7f-4a0e-9d3f-4b9a7f0f5a11*", {}, None),
    ("invitation", TENANT, "POST", "/v1/invitations", {}, '{"email":"new@example.com*","role":"viewer*"}'),
    ("analytics", TENANT, "GET", "/v1/analytics/orders_per_day*?after=a*&limit=5*&order=asc*", {}, None),
    ("analytics-fleet", OPERATOR, "GET", "/v1/analytics/orders_per_day?by=tenant*&after=a*&tenant=a*", {}, None),
    ("violations", OPERATOR, "GET", "/v1/violations?kind=wrong_scope*&limit=5*&tenant=a*&after=a*", {}, None),
    ("tenants", OPERATOR, "GET", "/v1/tenants?after=a*&limit=5*", {}, None),
    ("tenant", OPERATOR, "GET", "/v1/tenants/3f0c5fd2-6f7f-4a0e-9d3f-4b9a7f0f5a11*", {}, None),
    ("log-in", NOBODY, "POST", "/v1/auth/login", {}, f'{{"email":"owner@acme.example*","password":"{PASSWORD}","tenant":"acme*"}}'),
    ("refresh", NOBODY, "POST", "/v1/auth/refresh", {}, '{"refresh_token":"fhr_a*"}'),
]


def write_request(service, name, who, method, path, headers, body):
    host = urllib.parse.urlsplit(service.url).netloc
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}"]
    token = {TENANT: service.tenant_token, OPERATOR: service.operator_token}.get(who)
    if token:
        lines.append(f"Authorization: Bearer {token}")
    lines += [f"{header}: {value}" for header, value in headers.items()]
    if body:
        lines.append("Content-Type: application/json")
    file = WORK / f"{name}.http"
    file.write_text("\r\n".join([*lines, "", body or ""]))
    return file


def attack(file, secs, arguments):
    """Returns `clean`, `injectable` or `unfinished`."""
    log = file.with_suffix(".log")
    command = [
        os.path.join(os.path.dirname(sys.executable), "sqlmap"),
        "-r", str(file), "--batch", "--disable-coloring", "--output-dir", str(file.with_suffix("")),
        "--dbms", "PostgreSQL", "--level", "3", "--risk", "2", "--technique", "BEUST", "--time-sec", "2",
        "--threads", "2", "--timeout", "10", "--retries", "1", "--ignore-code", "*", "--flush-session",
        *arguments,
    ]
    with open(log, "wb") as output:
        try:
            subprocess.run(command, stdout=output, stderr=output, timeout=max(secs, 1), check=False)
        except subprocess.TimeoutExpired:
            return "unfinished"
    text = log.read_text(errors="replace")
    if FOUND in text:
        return "injectable"
    return "clean" if any(line in text for line in TESTED) else "unfinished"


def main():
    binary, seconds, *arguments = sys.argv[1:]
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    bad = []
    with serve(binary) as service:
        ends = time.monotonic() + int(seconds)
        for request in REQUESTS:
            began = time.monotonic()
            outcome = attack(write_request(service, *request), ends - began, arguments)
            print(f"{request[0]:16} {outcome:12} {time.monotonic() - began:5.0f} s", flush=True)
            if outcome != "clean":
                bad.append(request[0])
    if bad:
        folder = pathlib.Path(WORK).relative_to(PROJECT)
        sys.exit(f"not clean: {', '.join(bad)}; what sqlmap says of each is in {folder}/NAME.log")


main()
