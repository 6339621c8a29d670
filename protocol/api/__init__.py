"""The HTTP API, written once over the build service and mounted by every program.

To add a family: one module with a `ROUTES` tuple, and one line in the program's `app.py` that names
it.
"""
