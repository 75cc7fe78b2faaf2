"""One file per claim: `python -m benchmarks.NAME [--quick]`.

A table for people on stderr, one JSON object as the last line of stdout.
"""
