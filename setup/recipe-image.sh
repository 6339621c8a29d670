# Decides whether an image of ours must be made: it is when the engine has none of that name, or one of ours made by another
# recipe. An image of that name that is not ours is left alone and used. Read by the scripts that make one, which set
#
#   image     its name
#   recipe    the folder of its recipe, with build.sh
#   depends   other folders that the recipe uses; may be empty
#   what      what is made, in words; and how long that takes
#
# shellcheck shell=sh disable=SC2154,SC2086  # set by who reads this; lists are split

label=imagepool.recipe

# Every file with its mode, in one order everywhere; and the kernel, which build.sh takes from the environment.
recipe_hash() {
  {
    printf '%s\n' "${KERNEL-}"
    for _folder in "$recipe" $depends; do
      cd "$_folder"
      find . -type f ! -path '*/__pycache__/*' | LC_ALL=C sort | while read -r file; do
        [ ! -x "$file" ] || printf 'x '
        sha256sum "$file"
      done
    done
  } | sha256sum | cut -c 1-32
}

wanted=$(recipe_hash)

up_to_date() {
  found=$(engine GET "/images/$image/json" Config Labels $label) || return 1
  [ -z "$found" ] || [ "$found" = "$wanted" ] # no label: not ours
}

# make_image [plan]
make_image() {
  if [ "${1-}" = plan ]; then
    if up_to_date; then return; fi
    say packages $packages_base_image
    say step "$what"
    return
  fi
  if up_to_date; then return; fi
  engine_answers || die "no Docker Engine answers at $DOCKER_HOST; setup/engine.sh sets one up"
  exec 9<"$here/recipe-image.sh"
  flock 9 # two set-ups in one tree take turns
  if up_to_date; then return; fi
  "$here/packages.sh" $packages_base_image
  old=$(engine GET "/images/$image/json" Id) || old=
  say "making $image"
  RECIPE_HASH=$wanted as_root "$recipe/build.sh" "$image" 9<&-
  # The one it replaces has no name any more; the engine refuses where a container still uses it.
  if [ -n "$old" ]; then engine DELETE "/images/$old" >/dev/null || :; fi
}
