"""Measurements of the product beside its floor, run by `make bench`: `noop` (a build that does
nothing, beside the raw engine API), `relay` (a large artifact through the scheduler, beside nginx's
proxy), `relay-tls` (the same where scheduler and node speak the pool's TLS, beside haproxy), `tls`
(polls, forwards and builds with it and without), `idle` (what nodes that do nothing cost their
scheduler), `store` (builds written down, beside plain appends), `create` (creates over HTTP, beside
a server that writes nothing down) and `logs` (read by many, beside the docker SDK). Figures that
were measured are in docs/performance.md.

Sides are interleaved in one run, since a machine's speed drifts; medians are compared, and ratios
count, not absolute figures. Results are printed; `--json FILE` keeps every single one. To add a
benchmark: a module with an async `run(runs) -> Outcome`, and its name in `bench/__main__.py`.
"""
