"""What stands in the way of a program on this machine: looked at, and nothing changed.

`examining` has the table of checks. To add one: a function of a `Subject` that answers findings, in
the module of what it looks at, its line in that table, and a test in tests/doctor that provokes it.
"""
