"""Plain nodes: servers that speak only the documented image-creator API, as nodes of the pool.

`node.py` is what the rest of the scheduler speaks to, as to any node; `exchange.py` what is sent
and heard; `attempts.py` what is remembered of it; `streams.py` log and image on their way through.
What the API can say and what its answers mean is decided in `scheduler/core/plain.py` and
`scheduler/core/plain_api.py`.
"""
