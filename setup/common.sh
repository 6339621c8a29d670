#!/bin/sh
# Decides what the set-up scripts share: where things of ours lie, which Debian packages each part needs, how to become
# root, how to reach the engine. Read by the other scripts (`. setup/common.sh`), does nothing by itself.
#
# Everything named IMAGEPOOL_* can be set from outside; the tests of these scripts do, nobody else needs to.

# shellcheck disable=SC2034  # the other scripts use the variables
set -eu

here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/.." && pwd)
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

venv="$top/.venv"

engine_socket=${IMAGEPOOL_ENGINE_SOCKET:-/var/run/docker.sock}
engine_root=${IMAGEPOOL_ENGINE_ROOT:-/var/lib/imagepool/engine}
engine_run=${IMAGEPOOL_ENGINE_RUN:-/run/imagepool}
engine_log=${IMAGEPOOL_ENGINE_LOG:-/var/log/imagepool/engine.log}
engine_pidfile="$engine_run/engine.pid"
# Where everything else, Python programs included, looks for the engine.
DOCKER_HOST=${DOCKER_HOST:-unix://$engine_socket}
export DOCKER_HOST

BASE_IMAGE=${BASE_IMAGE:-codersos/linux-image-creator}
export BASE_IMAGE
INSTALLER_IMAGE=${INSTALLER_IMAGE:-imagepool/installer}
export INSTALLER_IMAGE

# The node needs a static busybox (it is mounted into every build's container) and iptables, as the engine does.
packages_venv="python3-venv"
packages_engine="docker.io iptables ca-certificates"
packages_node="busybox-static iptables"
packages_base_image="mmdebstrap"
# QEMU with its BIOS (seabios), UEFI (ovmf) and network card (ipxe-qemu) boots what was built; avahi and dbus are the mDNS
# peer nobody here wrote; squashfs-tools and xorriso look into an ISO, unzip into a zip; curl and wget type the documents' own lines.
packages_tests="qemu-system-x86 seabios ovmf ipxe-qemu avahi-daemon avahi-utils dbus iproute2 squashfs-tools xorriso
  chromium curl wget procps unzip docker-registry tcpdump libfaketime"
packages_bench="nginx-light haproxy"

say() { printf '%s\n' "$*"; }
die() { printf 'imagepool setup: %s\n' "$*" >&2; exit 1; }

# The variables that steer a set-up or a test run, for `sudo`, which clears the rest.
kept_variables="DOCKER_HOST DOCKER_TLS_VERIFY DOCKER_CERT_PATH BASE_IMAGE INSTALLER_IMAGE KERNEL TMPDIR IMAGEPOOL_ENGINE_SOCKET IMAGEPOOL_ENGINE_ROOT
  IMAGEPOOL_ENGINE_RUN IMAGEPOOL_ENGINE_LOG RECIPE_HASH PYTEST_ADDOPTS http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY
  NO_PROXY"

# as_root COMMAND...: runs it as root, by sudo where we are not.
as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; return; fi
  command -v sudo >/dev/null 2>&1 || die "this needs root, and there is no sudo: $*"
  for _name in $kept_variables; do
    eval "_value=\${$_name-}"
    [ -z "$_value" ] || set -- "$_name=$_value" "$@"
  done
  sudo env "$@"
}

# missing_packages NAME...: prints those that are not installed.
missing_packages() {
  _installed=$(dpkg-query -W -f '${db:Status-Abbrev} ${Package}\n' "$@" 2>/dev/null | sed -n 's/^.i. *//p') || :
  for _name in "$@"; do
    printf '%s\n' "$_installed" | grep -qxF "$_name" || printf '%s\n' "$_name"
  done
}

# engine METHOD PATH [KEY...]: prints what the engine answers, as engine_request.py says; fails where it does not answer well.
engine() {
  python3 -IS "$here/engine_request.py" "$@" 2>/dev/null && return
  # The socket is root's, usually.
  [ "$(id -u)" != 0 ] && [ -S "${DOCKER_HOST#unix://}" ] && [ ! -w "${DOCKER_HOST#unix://}" ] || return 1
  as_root python3 -IS "$here/engine_request.py" "$@" 2>/dev/null
}

engine_answers() { engine GET /_ping >/dev/null; }

# lives PID: whether that process runs. One that ended and that nobody has waited for does not, though `kill -0` finds it.
lives() {
  _state=$(sed 's/.*) \(.\).*/\1/' "/proc/$1/stat" 2>/dev/null) || return 1
  [ "$_state" != Z ]
}

# ours_runs: whether the engine that engine.sh started lives: our pidfile names a dockerd on our data folder.
ours_runs() {
  [ -s "$engine_pidfile" ] || return 1
  _command=$(tr '\0' ' ' 2>/dev/null <"/proc/$(cat "$engine_pidfile")/cmdline") || return 1
  case "$_command" in *dockerd*"--data-root=$engine_root "*) return 0 ;; *) return 1 ;; esac
}
