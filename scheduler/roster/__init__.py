"""The roster as people and their programs see it: listed, as changes, over HTTP."""
