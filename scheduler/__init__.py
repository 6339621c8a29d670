"""The scheduler: finds and polls nodes, queues builds, chooses a node, forwards, relays; the web
page.

Imports `protocol`, never `node`. `app.py` puts everything together and nothing imports it but the
command line.
"""
