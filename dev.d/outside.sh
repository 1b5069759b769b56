# shellcheck shell=bash
# Looking at Freehold from the outside: fuzzers, scanners, linters. None of it is part of `test`;
# each command runs on a throwaway PostgreSQL under .freehold/, ends by itself, and fails if
# something is found. Sourced by ./dev.

# shellcheck disable=SC2154  # target is ./dev's; python, language_server, cargo_deny are of tools.sh

# take_seconds DEFAULT [arguments] sets seconds from `--seconds N`, and rest to the other arguments.
take_seconds() {
  seconds=$1 rest=()
  shift
  while [ $# -gt 0 ]; do
    case $1 in
      --seconds)
        [ $# -ge 2 ] || usage_error '--seconds takes a number'
        seconds=$2
        shift
        ;;
      --seconds=*) seconds=${1#*=} ;;
      *) rest+=("$1") ;;
    esac
    shift
  done
  case $seconds in
    '' | *[!0-9]* | 0*) usage_error "--seconds takes a whole number from 1 on, not '$seconds'" ;;
  esac
}

# The properties that `test` tries some hundreds of times, with new cases until the time is up. They
# are proptest's: cargo-fuzz wants a nightly toolchain.
fuzz() {
  local name=properties
  take_seconds 60 "$@"
  [ "${#rest[@]}" -le 1 ] || usage_error 'fuzz takes one name'
  [ "${#rest[@]}" -eq 0 ] || name=${rest[0]}
  need_cargo
  need cc postgres
  say 'building'
  cargo build -p freehold-server --features dev --locked
  in_database debug fuzz bash dev.d/fuzz-rounds.sh "$seconds" \
    cargo test --quiet --all-features --locked -p freehold -p freehold-server --lib --test it "$name"
}

schemathesis() {
  take_seconds 300 "$@"
  served_by contract.py "$seconds" ${rest[@]+"${rest[@]}"}
}

run_sqlmap() {
  take_seconds 900 "$@"
  served_by injection.py "$seconds" ${rest[@]+"${rest[@]}"}
}

# served_by SCRIPT [arguments] runs a script of dev.d that serves a throwaway system to its tool.
served_by() {
  local script=$1
  shift
  need_cargo
  need cc postgres
  python_tools
  say 'building'
  cargo build -p freehold-server --features dev --locked
  in_database debug outside "$python" "dev.d/$script" "$target/debug/freehold" "$@"
}

# Faults of the code, in a copy of it under target/mutants. The first run builds all of it there.
mutants() {
  need_for_tests
  say 'building'
  cargo build -p freehold-server -p freehold-mutants --features freehold-server/dev --locked
  FREEHOLD_PG_BIN=$pg_bin "$target/debug/freehold-mutants" --freehold "$target/debug/freehold" "$@"
}

lint_sql() {
  local status=0
  [ $# -eq 0 ] || usage_error 'lint-sql takes no arguments'
  python_tools
  language_server
  say 'squawk: the migrations of the catalog and of the demo'
  "${python%/*}/squawk" crates/freehold/migrations/*.sql demo/migrations/*.sql || status=$?
  say 'pgrls and splinter: the database that they make'
  served_by database_lints.py "$language_server"
  return "$status"
}

# Dependencies: licences, banned crates, sources, and known vulnerabilities. The list of the last is
# on GitHub; where that cannot be reached, the command says so, and fails after the rest is checked.
audit() {
  local status=0
  [ $# -eq 0 ] || usage_error 'audit takes no arguments'
  need_cargo
  cargo_deny
  say 'licences, bans, sources'
  "$cargo_deny" --locked check --hide-inclusion-graph licenses bans sources || status=$?
  say 'advisories'
  if ! "$cargo_deny" --locked fetch db; then
    die 'the advisory database (github.com/RustSec/advisory-db) could not be fetched:' \
      'known vulnerabilities were NOT looked for. Run this again where it can be reached.'
  fi
  "$cargo_deny" --locked check advisories || status=$?
  return "$status"
}
