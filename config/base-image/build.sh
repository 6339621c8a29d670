#!/bin/bash
# Makes the base image for live ISOs from Debian packages and imports it into the Docker engine.
#
#   config/base-image/build.sh NAME
#
# Environment: RECIPE_HASH  kept as the image's label imagepool.recipe, may be empty
#              HOOK         a program that is given the tree when it is done, as mmdebstrap's hooks are
#              KERNEL       kernel package; linux-image-amd64 adds the drivers of real machines (and 100 MB)
#              TMPDIR       about 1.5 GB are needed there for a minute
# Runs as root or asks sudo. Standard output stays empty.
set -euo pipefail
exec 1>&2

say() { printf 'base image: %s\n' "$*"; }
die() { say "$*"; exit 1; }

[ $# -eq 1 ] || die "usage: build.sh NAME"
name=$1
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

if [ "$(id -u)" -ne 0 ]; then
    exec sudo --preserve-env=RECIPE_HASH,HOOK,KERNEL,TMPDIR,DOCKER_HOST,http_proxy,https_proxy,no_proxy \
        bash "$here/build.sh" "$name"
fi
for program in mmdebstrap docker; do
    command -v "$program" >/dev/null || die "$program is missing: install the package that has it"
done
[ "$(dpkg --print-architecture)" = amd64 ] || die "the boot loaders of this recipe are for amd64 only"
docker version >/dev/null || die "no Docker engine answers"

# /var/tmp, since /tmp may be small, in memory, or without device nodes. The folder is open to all
# because apt fetches as a user of its own.
work=$(mktemp -d "${TMPDIR:-/var/tmp}/base-image.XXXXXX")
chmod 755 "$work"
: >"$work/log"
builder=
clean_up() {
    trap '' INT TERM HUP
    if [ -n "$builder" ] && kill -- "-$builder" 2>/dev/null; then wait "$builder" || :; fi
    rm -rf --one-file-system "$work"
}
trap clean_up EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

packages=(
    "${KERNEL:-linux-image-cloud-amd64}" initramfs-tools live-boot zstd
    systemd-sysv systemd-resolved libpam-systemd udev dbus iproute2
)
small=(
    'path-exclude=/usr/share/man/*' 'path-exclude=/usr/share/info/*' 'path-exclude=/usr/share/locale/*'
    'path-exclude=/usr/share/doc/*' 'path-include=/usr/share/doc/*/copyright'
    force-unsafe-io # a container's disk is thrown away, syncing it only costs time
)

say "Debian packages: ${packages[*]}"
# In the background, and waited for: only so does bash answer a signal before the command ends. A process group of its own:
# mmdebstrap alone would finish the packages before it answers.
# The hook folder (part of mmdebstrap) spares us usrmerge, which would bring all of perl.
TMPDIR=$work setsid mmdebstrap --variant=minbase --format=tar \
    --include="$(IFS=,; echo "${packages[*]}")" \
    "${small[@]/#/--dpkgopt=}" \
    --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr \
    --customize-hook="sh '$here/customize.sh' \"\$1\"" \
    ${HOOK:+--customize-hook="sh '$HOOK' \"\$1\""} \
    bookworm "$work/image.tar" >>"$work/log" 2>&1 &
builder=$!
tail --pid=$builder -n +1 -f "$work/log" | grep --line-buffered -E '^(I|W|E|base image): ' &
wait $builder || { builder=; tail -n 30 "$work/log"; die "mmdebstrap failed, see above"; }
builder=

say "import into the engine as $name"
docker import -c "LABEL imagepool.recipe=\"${RECIPE_HASH:-}\"" -c 'CMD ["/bin/bash"]' \
    "$work/image.tar" "$name" >/dev/null
say "$name is there, $(($(stat -c %s "$work/image.tar") / 1000000)) MB, after $SECONDS s"
