"""The HTTP API, written once over the build service and mounted by every program.

To add a family: one package with a `ROUTES` tuple in one of its modules, and one line in the
program's `app.py` that names it.
"""
