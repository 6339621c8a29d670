#!/bin/sh
# Decides requirements.lock (`make lock`): every package of .venv - run time, tests, development - at one exact version, with
# the hashes of all its files, good for CPython 3.11 and later on Linux, whatever the processor. Where the files come from
# stays out of it: that is the setting of the machine that installs.
. "$(dirname "$0")/common.sh"

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python3 -m venv "$scratch/venv"
"$scratch/venv/bin/pip" install --quiet uv

# uv reads the systems to solve for from the project file only; ours keeps free of it.
cp "$top/pyproject.toml" "$scratch/"
printf '\n[tool.uv]\nenvironments = ["sys_platform == '"'linux'"'"]\n' >>"$scratch/pyproject.toml"
cd "$scratch"
{
  printf '# Every package of .venv with its exact version and hashes. Written by `make lock`; do not edit.\n'
  venv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url \
    --upgrade --extra test --extra dev pyproject.toml
} >lock
if grep -n '://' lock; then die "the lock names an address (above): not written"; fi
cat lock >"$top/requirements.lock"
say "requirements.lock: $(grep -c '==' lock) packages"
