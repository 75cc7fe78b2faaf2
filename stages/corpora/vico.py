"""ViCo (arXiv 2112.13548): coefficients of the Basel face model that Deep3DFaceRecon makes of each person's clip.

`coeff` [S, 257] of a `.mat` file: identity 0–79, expression 80–143, texture 144–223, the head's angles 224–226 (Euler,
rad, Rz·Ry·Rx), lighting 227–253, the head's place 254–256, within a crop that follows the face from frame to frame.
Identity, texture and lighting are no motion; where the crop lies (`transform_params`) is not read. Columns and rate as
`dc3ea9f/vico_challenge_baseline` has them: `preprocess`, 30 frames a second. A reconstruction of a film at another rate
is known by the length of the sound beside it.
"""

from __future__ import annotations

import numpy as np

from visavis.schemas.errors import Reason, Rejected
from visavis.schemas.uris import file_name
from visavis.stages.corpora.coefficients import Taken, table_of
from visavis.stages.corpora.grid import between, rate_of, turned
from visavis.stages.media.mat import read_matrix
from visavis.stages.media.opening import judged, open_bytes

EXPRESSION, _COLUMNS = 64, 257
_FIRST, _ANGLES, _PLACE = 80, slice(224, 227), slice(254, 257)
_RATES, _WITHIN, _FEW = (24.0, 25.0, 30.0, 50.0, 60.0), 0.02, 3  # clips are short: a few frames are much of them
_LARGEST = 64 << 20  # bytes of a `.mat`: nine minutes of a film


def read_coefficients(uri: str, seconds: float, exp: int) -> Taken:
    """Motion of one person on the 25 fps grid; the first `exp` coefficients of expression.

    Args:
        seconds: of the sound beside it.

    Raises:
        Rejected: UNREADABLE, also where the frames fit no rate.
    """
    name = file_name(uri)
    with open_bytes(uri) as file, judged(uri, file):
        coeff_SC = table_of(read_matrix(file, "coeff", _LARGEST), "coeff", name, _COLUMNS, _COLUMNS)
    parts = {"exp": coeff_SC[:, _FIRST : _FIRST + exp], "pose": coeff_SC[:, _ANGLES], "place": coeff_SC[:, _PLACE]}
    for part, part_SD in parts.items():
        if bad := int((~np.isfinite(part_SD)).sum()):
            said = f"{name}: {part} has {bad} of {part_SD.size} numbers that are not finite"
            raise Rejected(Reason.UNREADABLE, said)
    grid = between(len(coeff_SC), rate_of(len(coeff_SC), seconds, name, _RATES, _WITHIN, _FEW))
    made = {part: grid.straight(part_SD) for part, part_SD in parts.items()}
    return Taken(made | {"pose": turned(parts["pose"], grid)})
