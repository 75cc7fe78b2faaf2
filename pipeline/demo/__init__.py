"""Short dyadic videos with known truth: synthetic voices, rendered heads, and a listener who follows a rule.

    script (who says what, when; the rule) → voices (espeak-ng) → render (3D heads) → dialogue (mp4 and truth)

They stand in for recordings where none can be shipped: the demo, the tests and the benchmarks know what
the pipeline should find in them.
"""
