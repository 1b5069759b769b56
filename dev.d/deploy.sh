# shellcheck shell=bash
# What is in deploy/: the manifests for Kubernetes are rendered and checked, the container image is
# built and tried. Sourced by ./dev.

manifests() {
  local folder=$TOOLS/manifests installed=$TOOLS/manifests/installed.txt status=0
  if ! cmp -s dev.d/requirements-manifests.txt "$installed"; then
    need python
    say 'fetching the tools of dev.d/requirements-manifests.txt from PyPI'
    rm -rf "$folder"
    mkdir -p "$TOOLS"
    python3 -m venv "$folder"
    "$folder/bin/python" -m pip install --quiet --disable-pip-version-check -r dev.d/requirements-manifests.txt >&2
    cp dev.d/requirements-manifests.txt "$installed"
  fi
  "$folder/bin/python" dev.d/manifests.py "$folder/bin/kubectl" "$@" || status=$?
  "$folder/bin/python" dev.d/compose.py || status=$?
  "$folder/bin/python" "$folder/bin/checkov" --config-file dev.d/checkov.yaml -d deploy/kubernetes/rendered || status=$?
  return "$status"
}

readonly IMAGE=.freehold/image IMAGE_MB_MAX=60 IMAGE_SECS_MAX=3600

in_store() {
  local command=$1
  shift
  # vfs and chroot need nothing of the kernel that a container lacks, so it works in one, too.
  buildah --storage-driver vfs --root "$PWD/$IMAGE/store" --runroot "$PWD/$IMAGE/run" "$command" "$@"
}

# A base to build on that is nothing but this machine's own compiler, lent read-only.
lend_base() {
  local container link
  container=$(in_store from scratch)
  mkdir -p "$IMAGE/base/etc/ssl/certs" "$IMAGE/base/tmp" "$IMAGE/base/usr" "$IMAGE/base/var/lib/dpkg"
  for link in bin sbin lib lib64; do
    if [ -L "/$link" ]; then ln -sfn "usr/$link" "$IMAGE/base/$link"; else mkdir -p "$IMAGE/base/$link"; fi
  done
  in_store copy --quiet "$container" "$IMAGE/base" / >/dev/null
  in_store config --env "PATH=$(dirname -- "$(command -v cargo)"):/usr/local/bin:/usr/bin:/bin" \
    --env CARGO_NET_OFFLINE=true --env "CARGO_BUILD_JOBS=${CARGO_BUILD_JOBS:-$(nproc)}" \
    --env "CARGO_HOME=${CARGO_HOME:-$HOME/.cargo}" --env "RUSTUP_HOME=${RUSTUP_HOME:-$HOME/.rustup}" "$container"
  in_store commit --quiet --rm "$container" localhost/freehold-build >/dev/null
}

build_image() {
  local lent='' folder
  for folder in /usr /etc/alternatives /etc/ssl/certs /var/lib/dpkg "${CARGO_HOME:-$HOME/.cargo}" "${RUSTUP_HOME:-$HOME/.rustup}"; do
    [ -d "$folder" ] && lent="$lent --volume $folder:$folder:ro"
  done
  [ -L /lib ] || lent="$lent --volume /lib:/lib:ro --volume /bin:/bin:ro"
  # The compiler's output stays outside of the image's layers, and for the next time.
  mkdir -p "$IMAGE/target"
  # shellcheck disable=SC2086  # a list of arguments
  timeout "$IMAGE_SECS_MAX" buildah --storage-driver vfs --root "$PWD/$IMAGE/store" --runroot "$PWD/$IMAGE/run" \
    bud --isolation chroot --layers=false --build-arg BUILD_BASE=localhost/freehold-build --build-arg RUN_BASE=scratch \
    --volume "$PWD/$IMAGE/target:/tmp/target" $lent --file deploy/Containerfile --tag localhost/freehold . >&2
}

# A program that is the image's own, as its user, over its root, which nobody can write to: what a
# container's runtime does, without one. It keeps its arguments, environment and process id.
write_runner() {
  local root=$1
  cat >"$IMAGE/freehold" <<RUNNER
#!/bin/sh
exec unshare --mount sh -c 'mount --bind "\$0" "\$0" && mount -o remount,ro,bind "\$0" && exec chroot --userspec=65532:65532 "\$0" /usr/bin/freehold "\$@"' "$root" "\$@"
RUNNER
  chmod +x "$IMAGE/freehold"
}

image() {
  local container root size config
  need_cargo
  need cc postgres buildah
  [ "$(id -u)" -eq 0 ] || die 'an image is built and tried as root here, by chroot and a mount of its own.'
  say 'fetching what is compiled'
  cargo fetch --locked >&2
  rm -rf "${IMAGE:?}/base"
  mkdir -p "$IMAGE"
  lend_base
  say 'building the image (the first time takes some minutes)'
  build_image

  container=$(in_store from localhost/freehold)
  root=$(in_store mount "$container")
  size=$(du -sb "$root" | cut -f1)
  config=$(in_store inspect --type image --format '{{.OCIv1.Config.User}} {{.OCIv1.Config.StopSignal}} {{.OCIv1.Config.Entrypoint}} {{.OCIv1.Config.Env}}' localhost/freehold)
  say "the image: $((size / 1000000)).$((size / 100000 % 10)) MB in $(find "$root" -type f | wc -l) files; $config"
  [ "$size" -le $((IMAGE_MB_MAX * 1000000)) ] || die "the image is larger than $IMAGE_MB_MAX MB."
  case $config in '65532:65532 SIGTERM [/usr/bin/freehold] '*) ;; *) die "the image is configured otherwise: $config" ;; esac
  case $config in *CARGO*) die "the image has the compiler's environment: $config" ;; esac
  [ -z "$(find "$root" -type f \( -perm -o+w -o -perm -4000 \))" ] || die 'the image has files that anybody may write, or that make anybody root.'
  python3 - "$root/usr/share/sbom/freehold.cdx.json" <<'PYTHON' || die 'the bill of materials is not whole.'
import json, re, sys
bill = json.load(open(sys.argv[1]))
names = {part["name"] for part in bill["components"]}
missing = {"axum", "tokio", "rustls", "argon2", "libc6", "ca-certificates"} - names
bare = [part["name"] for part in bill["components"] if part["purl"].startswith("pkg:cargo/") and part["name"] != "freehold" and "hashes" not in part]
print(f"» bill of materials: {len(names)} components", file=sys.stderr)
sys.exit(f"missing {missing}, without a checksum {bare}" if missing or bare else 0)
PYTHON
  write_runner "$root"
  "$IMAGE/freehold" --version
  say 'trying it with 2,000 tenants'
  cargo build --workspace --all-features --locked
  FREEHOLD_START_TENANTS=2000 FREEHOLD_START_READY_MS=${FREEHOLD_START_READY_MS:-1000} FREEHOLD_START_PROGRAM=$PWD/$IMAGE/freehold \
    in_database debug image cargo test --all-features --locked -p freehold-server --test it -- --exact --nocapture \
    start::a_server_is_ready_soon_and_small_at_rest
  in_store rm "$container" >/dev/null
}
