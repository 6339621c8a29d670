"""The pool: programs that may be nodes, found, polled and remembered."""
