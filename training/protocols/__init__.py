"""What public scripts of this field print, by their definitions: figures that can be laid beside published ones.

`training.metrics` scores windows of motion that the corpus normalises. These score whole sequences in raw units, part
by part (expression, jaw, pose), as the scripts do:

    dim        DIM, as in Avatar Forcing's table: pooled k-means and variance, one correlation of everything
    dualtalk   DualTalk (arXiv 2505.18096) and TIMAR: each figure per sequence, then the mean
    unils      UniLS (arXiv 2512.09327): how far the deviation over time is from the truth's, while speaking, listening
    react      REACT 2023 to 2026: concordance, time warping, diversity of samples, synchrony

Each has a file; `score` calls them by name. `clips` has the sequences and what is laid beside them, `figures` what two
of them print, `averages` how all go through sequences.

A name of one protocol means something else in the next: a SID of `dim` stands beside no SID of `dualtalk`. What cannot
be said is NaN, never 0: a covariance of one frame, a correlation of what does not move, anything of no frames.
Floors are of `python -m benchmarks.floors --dialogues FOLDER` on the two real dialogues in DualTalk's layout, 587
frames each, as exp, jaw, pose: halves of the truth beside each other (`halves`), and white noise of the truth's mean
and deviation. Of two sequences they show an order of magnitude; the row `floor` of every table has one's own.

Shape suffixes: T frames of a sequence, D dimensions of a part, K motions generated for one user. Everything is worked
out in float64, but for k-means: where it ends depends on the type, so arrays keep theirs there, as in the scripts.
"""
