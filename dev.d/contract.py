"""Runs schemathesis over the OpenAPI document against a service: once with a tenant's token and
once with an operator's. Usage: contract.py FREEHOLD SECONDS [arguments of schemathesis]
"""

import os
import subprocess
import sys

from service import PROJECT, serve

CONFIG = PROJECT / "dev.d" / "schemathesis.toml"


def check(service, token, seconds, arguments):
    return subprocess.run(
        [
            os.path.join(os.path.dirname(sys.executable), "schemathesis"),
            "--config-file", str(CONFIG),
            "run", f"{service.url}/openapi.json",
            "--header", f"Authorization: Bearer {token}",
            "--max-time", str(seconds),
            *arguments,
        ],
        cwd=PROJECT / ".freehold" / "outside",
        check=False,
    ).returncode


def main():
    binary, seconds, *arguments = sys.argv[1:]
    # Two passes share the time.
    seconds = max(int(seconds) // 2, 1)
    with serve(binary) as service:
        codes = []
        for who, token, scope in [
            ("a tenant's owner", service.tenant_token, ["--exclude-tag", "tenants"]),
            ("an operator", service.operator_token, ["--include-tag", "tenants", "--include-tag", "sign-in"]),
        ]:
            print(f"» schemathesis as {who}", file=sys.stderr, flush=True)
            codes.append(check(service, token, seconds, [*scope, *arguments]))
    sys.exit(max(codes))


main()
