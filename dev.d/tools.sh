# shellcheck shell=bash disable=SC2034
# Tools that look at the project and are no part of it, each of one version, in .freehold/tools.
# Sourced by ./dev.

readonly TOOLS=.freehold/tools
readonly CARGO_DENY=0.20.2 LANGUAGE_SERVER=0.25.5

# Sets python to the interpreter of an environment with dev.d/requirements.txt.
python_tools() {
  local installed=$TOOLS/python/installed.txt
  python=$PWD/$TOOLS/python/bin/python
  cmp -s dev.d/requirements.txt "$installed" && return
  need python
  say 'fetching the tools of dev.d/requirements.txt from PyPI'
  rm -rf "$TOOLS/python"
  mkdir -p "$TOOLS"
  python3 -m venv "$TOOLS/python"
  "$python" -m pip install --quiet --disable-pip-version-check -r dev.d/requirements.txt >&2
  cp dev.d/requirements.txt "$installed"
}

# Sets language_server to the PostgreSQL language server, whose `dblint` is Supabase's splinter.
language_server() {
  local folder=$TOOLS/language-server-$LANGUAGE_SERVER
  language_server=$PWD/$folder/node_modules/.bin/postgres-language-server
  [ -x "$language_server" ] && return
  need node
  say "fetching the PostgreSQL language server $LANGUAGE_SERVER from npm"
  npm install --prefix "$folder" --no-audit --no-fund --loglevel=error \
    "@postgres-language-server/cli@$LANGUAGE_SERVER" >/dev/null
}

# Sets cargo_deny to cargo-deny, built from crates.io.
cargo_deny() {
  local folder=$TOOLS/cargo-deny-$CARGO_DENY
  cargo_deny=$PWD/$folder/bin/cargo-deny
  [ -x "$cargo_deny" ] && return
  need cc
  say "building cargo-deny $CARGO_DENY from crates.io (some minutes, the first time only)"
  # Its dependencies are none of ours, and go away with the build folder.
  CARGO_TARGET_DIR=$folder/target cargo install --quiet --locked --root "$folder" --version "$CARGO_DENY" cargo-deny >&2
  rm -rf "$folder/target"
}
