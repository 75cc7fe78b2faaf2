"""Visavis: from dyadic conversation video to training shards, preference pairs and a causal listener.

`visavis.training` needs shards and little more than torch; `visavis.stages` are usable one by one; `visavis.pipeline`
runs them on a laptop or a cluster. In a checkout the packages are links to the folders of the top level.
"""

__version__ = "0.2.0"
