"""What turns stages into a run: plan, execution, commits, ledger, and the command line.

    config + inputs ─► plan (build.py) ─► tasks ─► engine (local or Ray) ─► artifact committed ─► ledger row

Three sentences hold everything together. An item's artifact lies at a path that follows from stage, version,
settings and item. Whoever finds it there, made from the same inputs, has nothing to do. The ledger is the
account of what happened to each item, never the truth of what exists.
"""
