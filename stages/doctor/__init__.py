"""Doctor: is a corpus as a whole what it should be? Checks on rows, sound and motion, a module for each family.

All that is measured of a conversation is sums over stretches of it, so stretches may come in any order, a conversation
may lie in many shards, and memory does not grow with the corpus (`scratch`). Who judges sees the sums, and what is
usual in this corpus (`examine`).
"""
