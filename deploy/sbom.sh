#!/bin/sh
# A bill of materials (CycloneDX 1.6, JSON) of a built program: the crates that are compiled into it,
# with version, licence and checksum, and the system's libraries that it loads.
# Usage, in the project's folder: deploy/sbom.sh PROGRAM
set -eu
program=$1

crates() {
  cargo tree --locked --offline -p freehold-server -e normal,no-proc-macro --prefix none --no-dedupe --format '{p}|{l}' |
    sed 's/ (\*)$//; s/ ([^)]*)|/|/' | sort -u
}

# What the program loads, by Debian's names; other systems leave this out.
libraries() {
  command -v dpkg-query >/dev/null 2>&1 || return 0
  for file in $(ldd "$program" | grep -o '/[^ ]*') /etc/ssl/certs/ca-certificates.crt; do
    dpkg-query -S "$file" "$(readlink -f "$file")" "/usr$file" 2>/dev/null | cut -d: -f1
  done | sort -u | while read -r package; do
    dpkg-query -W -f '${source:Package} ${Version} ${Package}\n' "$package"
  done
  dpkg-query -W -f '${source:Package} ${Version} ${Package}\n' ca-certificates 2>/dev/null || true
}

{
  awk '/^name = /{n=$3} /^version = /{v=$3} /^checksum = /{gsub(/"/, "", n); gsub(/"/, "", v); gsub(/"/, "", $3); print "sum|" n "|" v "|" $3}' Cargo.lock
  crates | sed 's/^/crate|/'
  libraries | sort -u | sed 's/^/system|/'
} | awk -F'|' -v made="$(date -u +%Y-%m-%dT%H:%M:%SZ)" '
  function text(s) { gsub(/\\/, "\\\\", s); gsub(/"/, "\\\"", s); return "\"" s "\"" }
  $1 == "sum" { sum[$2 " " $3] = $4 }
  $1 == "crate" {
    split($2, part, " "); name = part[1]; version = substr(part[2], 2)
    if (name == "freehold-server") { own = version; next }
    line = "{\"type\":\"library\",\"name\":" text(name) ",\"version\":" text(version)
    line = line ",\"purl\":" text("pkg:cargo/" name "@" version) ",\"bom-ref\":" text(name "@" version)
    if ($3 != "") line = line ",\"licenses\":[{\"expression\":" text($3) "}]"
    key = name " " version
    if (key in sum) line = line ",\"hashes\":[{\"alg\":\"SHA-256\",\"content\":" text(sum[key]) "}]"
    all[++count] = line "}"
  }
  $1 == "system" {
    split($2, part, " ")
    all[++count] = "{\"type\":\"library\",\"name\":" text(part[3]) ",\"version\":" text(part[2]) ",\"purl\":" \
      text("pkg:deb/debian/" part[3] "@" part[2]) ",\"bom-ref\":" text("deb/" part[3] "@" part[2]) "}"
  }
  END {
    printf "{\"bomFormat\":\"CycloneDX\",\"specVersion\":\"1.6\",\"version\":1,\"metadata\":{\"timestamp\":%s,", text(made)
    printf "\"component\":{\"type\":\"application\",\"name\":\"freehold\",\"version\":%s,\"bom-ref\":\"freehold\"}},\"components\":[\n", text(own)
    for (i = 1; i <= count; i++) printf "%s%s\n", all[i], i < count ? "," : ""
    print "]}"
  }'
