"""Shapes in signatures: a letter is an axis, and the same letter the same size within a call. Tests check every call.

B windows, T frames, D motion dimensions, F features, N samples of sound (in BNTE: heads), E a head's width, H width,
Q queries, K keys, S sessions (in SBD, B is the frames of a block), C a code's width (in CN: clips; in MaskTC: codes),
M all modulations. `LevelBT` broadcasts over windows, `LevelBTM` over frames, too. Numbers of frames, and masks made of
them, are one for all windows, or [B, 1, …] where each has its own clock.
"""

from jaxtyping import Bool, Float, Int
from torch import Tensor

BD = Float[Tensor, "B D"]
BKH = Float[Tensor, "B K H"]
BN = Float[Tensor, "B N"]
BNTE = Float[Tensor, "B N T E"]
BQH = Float[Tensor, "B Q H"]
BT = Float[Tensor, "B T"]
BTC = Float[Tensor, "B T C"]
BTD = Float[Tensor, "B T D"]
BTF = Float[Tensor, "B T F"]
BTH = Float[Tensor, "B T H"]
CN = Float[Tensor, "C N"]
FramesC = Int[Tensor, "... C"]
FramesK = Int[Tensor, "... K"]
FramesQ = Int[Tensor, "... Q"]
FramesT = Int[Tensor, "... T"]
KeepB = Bool[Tensor, "B"]
LevelBT = Float[Tensor, "#B T"]
LevelBTM = Float[Tensor, "#B #T M"]
MaskQK = Bool[Tensor, "... Q K"]
MaskTC = Bool[Tensor, "... T C"]
MaskTK = Bool[Tensor, "... T K"]
SBD = Float[Tensor, "S B D"]
SD = Float[Tensor, "S D"]
SN = Float[Tensor, "S N"]
STD = Float[Tensor, "S T D"]
Scalar = Float[Tensor, ""]
ValidBT = Bool[Tensor, "B T"]
