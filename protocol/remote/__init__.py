"""Other programs as this one sees them: the build service over HTTP, and the HTTP below it."""
