"""Which recordings hold the same sound, whatever was done to them since: encoded anew, cut, sped up, mixed, made noisy.

Three steps: peaks of a spectrogram are hashed in groups (`landmarks`); equal hashes of all recordings are brought
together on disk (`matches`); those of a pair that lie on a line tell how one runs along the other (`alignment`), and
which of the two is one too many (`verdict`).
"""
