"""What a build is, what may be asked of it and what programs say of it: values and rules, without
I/O.
"""
