"""Carrying out tasks: `run` follows the workflows of a phase, an `executor` has workers in this process or on Ray.

`worker` runs a stage on an item and commits what it makes; `ray_executor`, `pools` and `ray_workers` schedule workers
on a cluster, `supervise` watches each, `cluster` joins or starts Ray; `failures` ends a run that cannot end well;
`progress`, `metrics` and `terminal` say how far it is.
"""
