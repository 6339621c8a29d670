"""One attempt of a build, from its container's start to its end."""
