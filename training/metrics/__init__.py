"""Metrics of generated listening, on motion normalised by the corpus (mean 0, deviation 1 per dimension).

Published figures under one name differ 100-fold between variants, so each variant has its own name here:

    pcc        Pearson correlation of avatar and user over time, per window and dimension, then the mean
    rpcc       |pcc(truth, user) − pcc(generated, user)|: Avatar Forcing's rPCC per dimension; lower is better
    rpcc_flat  the same with all windows and dimensions flattened into one vector first (DIM's code)
    lagged     correlation of the avatar with the user `lag` earlier, pooled over windows; neither rPCC tests timing
    var        variance over time, mean over dimensions; rewards wrong motion too, never to be read alone
    sid        entropy (bits) over k-means clusters of the truth's frames: 40 expression, 20 pose, as DIM's K
    fd_pooled  Fréchet distance between all frames of truth and of generated motion; published FD is per sequence
    jerk       mean absolute third difference, per second³

Where there is no motion there is no correlation: a constant dimension counts as 0, so holding still scores badly.
What cannot be said is NaN, never 0 by accident:

    a window with fewer than 2 valid frames    has no pcc and no var, and is left out of their means
    no such window, or no frame at all         every figure
    fd                                         of no more frames than dimensions, whose covariance has no full rank
    jerk                                       without four valid frames in a row
    lagged, at a lag                           without a window of 10 frames that are valid on both sides
    delay                                      where no correlation over lags is more than chance (`Lagged.delay`)
    a number that is not finite in a valid frame of any side    every figure of the set

Lags reach 2 s, or as far as windows of T frames do: T − 10 frames, which is 1.6 s for windows of 2 s.

A metric's text says its formula, its source, the space of its motion, its floor (what other windows of the truth score
beside their own users, and white noise of the truth's mean and deviation; `python -m benchmarks.floors`, 600 windows of
2 s of made listeners, expression and pose) and its answers to one frame, to a constant dimension and to no frames.

Each metric is made of parts that add up over windows, so that `training.accumulators` can take a corpus in batch by
batch; the functions of the same name do it all at once.

    correlation     pcc, rpcc, rpcc_flat        lags            lagged
    movement        var, jerk                   distributions   sid, fd
    windows         which frames count, and moments over them

Shape suffixes: W windows, T frames, D dimensions, N frames of all windows, L lags. Arrays are numpy float; `valid` is
bool [W, T], and frames that are not valid are left out everywhere, whatever they hold.
"""
