#!/bin/sh
# Decides the Python environment: .venv with exactly what requirements.lock says (checked by hash) and this working tree,
# editable. Made anew where the interpreter or the place changed, brought up to date where the lock or pyproject.toml did,
# left alone otherwise.
#
# `venv.sh plan` prints what is missing (see plan.sh).
# shellcheck disable=SC2086  # lists of package names are split
. "$(dirname "$0")/common.sh"

python=
for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
  if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python=$candidate; break; fi
done
[ -n "$python" ] || die "needs Python 3.11 or later; name one by PYTHON=..."

place="$top $("$python" -c 'import sys; print(sys.base_prefix, sys.version)')"
content=$(cat "$top/requirements.lock" "$top/pyproject.toml" | sha256sum)
stamp="$venv/imagepool.stamp"
up_to_date() { [ "$(cat "$stamp" 2>/dev/null)" = "$place $content" ]; }
# Debian keeps the part of venv that installs pip in a package of its own.
venv_works() { "$python" -c 'import ensurepip, venv' 2>/dev/null; }

if up_to_date; then exit 0; fi
if [ "${1-}" = plan ]; then
  venv_works || say packages $packages_venv
  say step "install $(grep -c '==' "$top/requirements.lock") Python packages, named in requirements.lock, into .venv"
  exit 0
fi

exec 9<"$here/venv.sh"
flock 9 # two set-ups in one tree take turns
if up_to_date; then exit 0; fi

case "$(cat "$stamp" 2>/dev/null)" in
  "$place "*) ;;
  *)
    venv_works || "$here/packages.sh" $packages_venv
    say "making .venv with $("$python" --version)"
    rm -rf "$venv"
    "$python" -m venv "$venv"
    ;;
esac
say "installing what requirements.lock names into .venv"
pip_install() { "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps "$@"; }
# First the locked pip, which then takes half the time for the rest.
awk '/^[^ #]/ { wanted = /^pip==/ } wanted' "$top/requirements.lock" | pip_install --require-hashes -r /dev/stdin
pip_install --require-hashes -r "$top/requirements.lock"
# The build tool is in the lock too, so that nothing unlocked is fetched.
output=$(pip_install --no-build-isolation --no-index --editable "$top" 2>&1) || die "the editable install failed:
$output"
printf '%s\n' "$place $content" >"$stamp"
