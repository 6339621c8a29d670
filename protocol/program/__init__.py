"""What running as a program takes, the same for all: settings, identity, sockets, mDNS, logs,
metrics.
"""
