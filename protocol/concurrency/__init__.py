"""What coroutines of one event loop need of each other: waiting for a change, locks, work that
nobody waits for.
"""
