"""What a pair goes through, on one line of three generators (`stages.pairs` joins them):

    shard ─► decode ─► generate ─► gate ─► shard of pairs
             windows   candidates  measurements, and a reason for what is left out

`candidates` generates, `gate` judges by `measurements`, against what `reference_statistics` learns from the recorded
windows of a class once, before work starts.
"""
