#!/bin/sh
# Decides how Debian packages get onto the machine: `setup/packages.sh NAME...` installs those that are missing, from
# whatever sources the machine's apt has, and asks nothing. It does not even run apt where all are there. Services that
# come along (avahi, nginx, the engine) are not started by it: whoever needs one starts it.
# shellcheck disable=SC2086  # lists of package names are split
. "$(dirname "$0")/common.sh"

missing=$(missing_packages "$@" | tr '\n' ' ')
[ -n "$missing" ] || exit 0
command -v apt-get >/dev/null 2>&1 || die "these packages are missing, and there is no apt-get to install them: $missing"

say "installing Debian packages: $missing"
output=$(mktemp)
policy=/usr/sbin/policy-rc.d # the place where Debian asks whether a package may start its service; 101 means no
made_policy=
clean_up() {
  rm -f "$output"
  [ -z "$made_policy" ] || as_root rm -f "$policy"
}
trap clean_up EXIT
trap 'exit 130' INT TERM HUP
if [ ! -e "$policy" ]; then
  made_policy=yes
  printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
  as_root chmod 755 "$policy"
fi

# Progress bars and unpacking lines help nobody; what failed does.
quietly() {
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=600 -o Acquire::Retries=3 \
    -o Dpkg::Use-Pty=0 "$@" >"$output" 2>&1 </dev/null || { tail -n 40 "$output" >&2; die "apt-get $1 failed"; }
}
quietly update
quietly install -y --no-install-recommends $missing
