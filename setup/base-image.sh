#!/bin/sh
# Decides whether the base image must be made: it is when the engine has none of that name (BASE_IMAGE), or one of ours made
# by another recipe than the one in config/base-image/. An image of that name that is not ours is left alone and used.
#
# `base-image.sh plan` prints what is missing (see plan.sh).
# shellcheck disable=SC2086  # lists of package names are split
. "$(dirname "$0")/common.sh"

recipe="$top/config/base-image"
label=imagepool.recipe

# Every file with its mode, in one order everywhere; and the kernel, which build.sh takes from the environment.
recipe_hash() {
  cd "$recipe"
  {
    printf '%s\n' "${KERNEL-}"
    find . -type f ! -path '*/__pycache__/*' | LC_ALL=C sort | while read -r file; do
      [ ! -x "$file" ] || printf 'x '
      sha256sum "$file"
    done
  } | sha256sum | cut -c 1-32
}

wanted=$(recipe_hash)

up_to_date() {
  found=$(engine GET "/images/$BASE_IMAGE/json" Config Labels $label) || return 1
  [ -z "$found" ] || [ "$found" = "$wanted" ] # no label: not ours
}

if [ "${1-}" = plan ]; then
  if up_to_date; then exit 0; fi
  say packages $packages_base_image
  say step "make the base image $BASE_IMAGE from Debian packages and import it into the engine (one to two minutes)"
  exit 0
fi

if up_to_date; then exit 0; fi
engine_answers || die "no Docker Engine answers at $DOCKER_HOST; setup/engine.sh sets one up"
exec 9<"$here/base-image.sh"
flock 9 # two set-ups in one tree take turns
if up_to_date; then exit 0; fi

"$here/packages.sh" $packages_base_image
old=$(engine GET "/images/$BASE_IMAGE/json" Id) || old=
say "making the base image $BASE_IMAGE"
RECIPE_HASH=$wanted as_root "$recipe/build.sh" "$BASE_IMAGE" 9<&-
# The one it replaces has no name any more; the engine refuses where a container still uses it.
if [ -n "$old" ]; then engine DELETE "/images/$old" >/dev/null || :; fi
