#!/bin/sh
# Decides how the set-up is announced: `setup/plan.sh PART...` prints what the scripts PART.sh are going to install, make and
# start, and nothing that is there already. Each script says it of itself when called with `plan`, in lines that begin with
# `packages` or `step`; so a plan cannot differ from what is done.
# shellcheck disable=SC2086  # lists of package names are split
. "$(dirname "$0")/common.sh"

plan=$(for part in "$@"; do "$here/$part.sh" plan; done)
# shellcheck disable=SC2046  # a list of names
missing=$(missing_packages $(printf '%s\n' "$plan" | sed -n 's/^packages //p') | tr '\n' ' ')
steps=$(printf '%s\n' "$plan" | sed -n 's/^step /  - /p')

[ -n "$missing$steps" ] || { say "Everything is installed and running already."; exit 0; }
say "This is going to be done first:"
[ -z "$missing" ] || say "install the Debian packages $missing" | fold -s -w 96 | sed '1s/^/  - /; 2,$s/^/    /'
[ -z "$steps" ] || say "$steps"
[ "$(id -u)" = 0 ] || say "What needs root is done by sudo."
say "\`make clean\` takes it away again, except for the Debian packages."
