"""What preference tuning minimises beside the flow loss: a file for each objective, and one seam (`seam.Preference`).

    pairs, noise ─► `pairs`: how far the policy and the frozen reference are off on both sides ─► an objective ─► loss

Every objective is given the same (`pairs.Compared`) and gives a mean over the frames that are compared, so that parts
of a step add up (`training.objective`). `docs/preference-tuning.md` says what each pushes, and where.
"""
