#!/bin/sh
# Decides what the measurements need beyond the product itself; common.sh lists it.
# shellcheck disable=SC2086  # lists of package names are split
. "$(dirname "$0")/common.sh"

if [ "${1-}" = plan ]; then say packages $packages_bench; exit 0; fi
exec "$here/packages.sh" $packages_bench
