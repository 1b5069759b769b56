"""Lints the database that `freehold init` and the demo's baseline make: with pgrls, and with the
PostgreSQL language server's `dblint`, which is Supabase's splinter.
Usage: database_lints.py FREEHOLD LANGUAGE_SERVER
"""

import json
import os
import re
import subprocess
import sys

import psycopg

from service import PROJECT, prepare

# What pgrls reports and we accept: rule, object, why. An entry that nothing meets is an error, so
# that the list only holds what is needed.
SCHEMA = r"(freehold_template|tenant_[0-9a-f]{32})"
ACCEPTED = [
    ("SEC001", r"freehold\.catalog_migration", "version numbers alone, which a server reads before it has a context"),
    ("SEC001", r"freehold_guard\.seal_key", "nobody but its owner has any right to it"),
    ("SEC005", rf"{SCHEMA}\.\w+\.tenant_isolation", "a schema is one tenant's: the policy compares the context with a constant"),
    ("SEC005", r"freehold\.analytics\.catalog_or_tenant", "definitions, in which there is nothing of a tenant's"),
    ("SEC005", r"freehold\.\w+\.catalog_only", "tables that no tenant sees at all: what decides is the context"),
    *(
        (rule, rf"({SCHEMA}|freehold|freehold_analytics)\.\w+\.(owner_access|app_access|app_read|analytics_access|analytics_read|tenant_access)",
         "permissive, under a restrictive policy that raises without the right context: both must hold")
        for rule in ("SEC005", "SEC008", "SEC028", "SEC038")
    ),
    ("SEC013", r"freehold\.\w+\.notify(_cache)?", "tells servers what to forget; reads and writes no table"),
    ("SEC013", r"freehold\.tenant\.forget_analytics", "removes what is left of a tenant, as who removes the tenant"),
    ("SEC013", r"freehold\.tenant\.end_epochs", "ends what caches hold of the tenant, as who changes the tenant"),
    ("SEC014", r"freehold_guard\.(unseal|admit)", "read a key that their owner alone may read, and give back what they were given"),
    ("SEC014", r"freehold_guard\.open_session", "keeps what unseal has verified, where nobody but its owner can ask for it"),
    ("SEC014", r"freehold_guard\.(list_keys|newest_key|next_key|add_key)", "granted to freehold_owner, and answer its own login alone"),
    ("SEC014", r"freehold_guard\.list_sampled", "names columns"),
    ("SEC014", r"freehold\.(record|prune)_violations", "so that the app role can add to the record and neither change nor shorten it"),
    *(
        ("SEC014", pattern, "figures, which the app role adds to and does not change; the catalog's policies bind the function as well")
        for pattern in (r"freehold\.(record|prune)_(usage|query_shapes|slow_queries)", r"freehold\.record_(busiest|slow_plan)",
                        r"freehold\.(measure|prune)_sizes")
    ),
    ("SEC007", r"freehold_analytics\.(total|touched)_\w+", "of no tenant, granted to nobody, and with one policy, for the owner"),
    ("SEC013", r"freehold_analytics\.rollup_\w+\.note_touched_by_(insert|update|delete)", "notes which groups changed, and shows nobody what is in them"),
    ("SEC014", r"freehold\.note_touched", "a trigger's function; copies the grain of the rows that were written, where the owner alone reads it"),
    ("SEC014", r"freehold\.refresh_analytics", "granted to freehold_analytics alone, and refreshes what definitions name"),
    ("SEC013", rf"{SCHEMA}\.order_items\.order_items_(inserted|updated|deleted)", "as the invoker, whom the policies bind"),
    ("PERF003", rf"{SCHEMA}\.order_notes\.\w+", "judges rows that a request has found by their own keys"),
    ("VIEW001", r"freehold_analytics\.published_\w+", "totals of the fleet for operators, whose context the view itself asks for"),
    ("VIEW003", r"freehold_analytics\.fleet_\w+", "totals of the fleet, granted to nobody; the view before them asks for an operator's context"),
    ("VIEW002", rf"{SCHEMA}\.order_summary", "a view with security_invoker that hides no rows"),
]


def pgrls(url):
    """The findings that nobody accepted, and the entries that nothing met."""
    with psycopg.connect(url) as database:
        rows = database.execute("SELECT nspname FROM pg_namespace WHERE nspname ~ '^(freehold|tenant_)'")
        schemas = ",".join(name for (name,) in rows)
    binary = os.path.join(os.path.dirname(sys.executable), "pgrls")
    done = subprocess.run(
        [binary, "lint", "--database-url", url, "--schemas", schemas, "--fail-on", "info", "--format", "json"],
        capture_output=True, text=True, check=False,
    )
    try:
        findings = json.loads(done.stdout)["violations"]
    except (ValueError, KeyError):
        sys.exit(f"pgrls gave no report: {done.stderr or done.stdout}")
    met = set()
    standing = []
    for finding in findings:
        rule, place = finding["rule_id"], finding["location"]
        entries = [at for at, (r, pattern, _) in enumerate(ACCEPTED) if r == rule and re.fullmatch(pattern, place)]
        met.update(entries)
        if not entries:
            standing.append(f"{rule} {place}: {finding['message']}")
    unmet = [f"{rule} {pattern}" for at, (rule, pattern, _) in enumerate(ACCEPTED) if at not in met]
    print(f"pgrls: {len(findings)} findings, {len(findings) - len(standing)} accepted with a reason")
    return standing + [f"accepted, and no longer found: {entry}" for entry in unmet]


def splinter(language_server, url):
    done = subprocess.run(
        [language_server, "dblint", "--config-path", str(PROJECT / "dev.d" / "splinter.jsonc"),
         "--connection-string", url, "--error-on-warnings"],
        capture_output=True, text=True, check=False,
    )
    report = (done.stdout + done.stderr).strip()
    print(f"splinter: {report.splitlines()[-1] if report else 'no report'}")
    return [] if done.returncode == 0 else [report]


def main():
    binary, language_server = sys.argv[1:]
    prepare(binary)
    url = os.environ["DATABASE_URL"]
    findings = pgrls(url) + splinter(language_server, url)
    if findings:
        sys.exit("\n".join(findings))


main()
