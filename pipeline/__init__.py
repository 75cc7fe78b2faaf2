"""What turns stages into a run: plan, execution, commits, ledger, and the command line.

    config + inputs ─► plan ─► tasks ─► engine (local or Ray) ─► artifact committed ─► ledger row (state)

`cli` has the commands, `app` joins them, `demo` makes conversations whose truth is known. Each imports only what stands
before it: state ← engine ← plan ← cli ← demo ← app.

Three sentences hold everything together. An item's artifact lies at a path that follows from stage, version,
settings and item. Whoever finds it there, made from the same inputs, has nothing to do. The ledger is the
account of what happened to each item, never the truth of what exists.
"""
