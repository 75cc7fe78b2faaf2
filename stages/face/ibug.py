"""The 68 facial landmarks of iBUG 300-W (Sagonas et al. 2013), which dlib, FAN and PIPNet give and many trainers ask
for, among the 478 of MediaPipe's face mesh.

Brows, nose, eyes and lips are the mesh's points at the same places, as in the tables that are passed around (such as
PeizhiYan/Mediapipe_2_Dlib_Landmarks). Of the jaw, those of the mesh's outline were taken that lie nearest to even
steps along it on the canonical face, as iBUG's do.

The trade-off: chosen, not fitted. The mesh ends where the cheek turns away from the viewer, and so does this jaw;
detectors of 68 points follow the face's visible border.
"""

from __future__ import annotations

import numpy as np

IBUG_68 = np.array(
    [
        *(127, 234, 132, 58, 172, 136, 150, 176, 152, 400, 379, 365, 397, 288, 361, 454, 356),  # 0-16 jaw
        *(70, 63, 105, 66, 107, 336, 296, 334, 293, 300),  # 17-26 brows
        *(168, 197, 5, 4, 98, 97, 2, 326, 327),  # 27-35 nose: bridge, then below
        *(33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380),  # 36-47 eyes
        *(61, 40, 37, 0, 267, 270, 291, 321, 314, 17, 84, 91),  # 48-59 outer lips
        *(78, 81, 13, 311, 308, 402, 14, 178),  # 60-67 inner lips
    ]
)
"""Point i of iBUG is point `IBUG_68[i]` of the mesh; left to right are the picture's."""
