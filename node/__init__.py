"""A node: runs builds in containers, keeps their record, log and artifacts, advertises itself.

Imports `protocol`, never `scheduler`. `app.py` puts everything together and nothing imports it but
the command line.
"""
