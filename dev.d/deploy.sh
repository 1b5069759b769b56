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
    --volume "$PWD/$IMAGE/target:/tmp/target" $lent \
    --env CARGO_NET_OFFLINE=true --env "CARGO_BUILD_JOBS=${CARGO_BUILD_JOBS:-$(nproc)}" \
    --file deploy/Containerfile --tag localhost/freehold . >&2
}

image() {
  need_cargo
  need cc buildah
  say 'fetching what is compiled'
  cargo fetch --locked >&2
  rm -rf "${IMAGE:?}/base"
  mkdir -p "$IMAGE"
  lend_base
  say 'building the image (the first time takes some minutes)'
  build_image
}
