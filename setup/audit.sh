#!/bin/sh
# Decides whether what requirements.lock names has known weaknesses (`make audit`): asks pip-audit, in an environment of its
# own, which looks at the advisories of the package index by name and version. `--advisories FOLDER...` asks no network but
# looks into copies of advisory databases (advisories.py says which, and tells of what date they are).
#
# Ends with 0 where there are none, 1 where there are, 3 where it could not be found out: a mirror of the index need not have
# the advisories, and then pip-audit, left alone, would say that nothing is known; a copy may be old.
. "$(dirname "$0")/common.sh"

if [ "${1-}" = --advisories ]; then
  shift
  "$here/venv.sh"
  exec "$venv/bin/python" "$here/advisories.py" "$top/requirements.lock" "$@"
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python3 -m venv "$scratch/venv" || exit 3
"$scratch/venv/bin/pip" install --quiet --disable-pip-version-check pip-audit || exit 3

# Exact versions without hashes and markers: every package counts, whatever this machine is.
sed -n 's/^\([A-Za-z0-9._-]*==[^ ]*\) .*/\1/p' "$top/requirements.lock" >"$scratch/pins"
status=0
"$scratch/venv/bin/pip-audit" --no-deps --disable-pip --progress-spinner off --format json -r "$scratch/pins" \
  >"$scratch/found.json" 2>"$scratch/said" || status=$?
[ -s "$scratch/found.json" ] || { cat "$scratch/said" >&2; exit 3; }
python3 - "$scratch/found.json" "$status" <<'END'
import json
import sys

packages = json.load(open(sys.argv[1], encoding="utf-8"))["dependencies"]
for package in packages:
    for weakness in package.get("vulns", ()):
        fixed = ", ".join(weakness["fix_versions"]) or "no version"
        print(f"{package['name']} {package['version']}: {weakness['id']}, mended in {fixed}")
skipped = [package["name"] for package in packages if "skip_reason" in package]
print(f"{len(packages) - len(skipped)} of {len(packages)} packages audited")
if any(package.get("vulns") for package in packages):
    sys.exit(1)
sys.exit(3 if skipped or sys.argv[2] != "0" else 0)
END
