"""What is to be done: inputs become sources, the graph of stages becomes tasks, and what they leave becomes a dataset.

`graph` is the table of stages, `workflow` one conversation's way through it, `build` a whole corpus; `sources`, `lists`
and `scan` read what the user names; `dataset` writes shards, `pairs` preference pairs, `importing` takes a public
corpus.
"""
