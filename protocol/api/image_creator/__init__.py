"""The image-creator API family: the documented one, `POST /create` and what belongs to it."""
