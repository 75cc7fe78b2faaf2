"""The causal listener: trained from shards, tuned on preferences, sampled as a stream.

    Dataset → Loader → Batch → Listener (velocity) → flow loss, preference loss → checkpoint
                                checkpoint → Stream / rollout → metrics

Runs from shards alone: of ours it imports `schemas` and nothing else.
"""
