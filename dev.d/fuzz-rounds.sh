#!/usr/bin/env bash
# Usage: fuzz-rounds.sh SECONDS COMMAND… repeats the command, each time with other cases, until the
# seconds are over; ends with the first round that fails. A round that has begun is finished.
set -euo pipefail

seconds=$1 round=0
shift
export PROPTEST_CASES=${PROPTEST_CASES:-2000}
log=$(mktemp)
trap 'rm -f "$log"' EXIT
while [ "$SECONDS" -lt "$seconds" ]; do
  round=$((round + 1))
  printf '» round %s, after %s s: %s cases of each property\n' "$round" "$SECONDS" "$PROPTEST_CASES" >&2
  "$@" 2>&1 | tee "$log"
  # A name that chooses nothing must not pass for a property that holds.
  grep -q '^test result: ok\. [1-9]' "$log" || {
    printf 'fuzz: no property has that name\n' >&2
    exit 1
  }
done
