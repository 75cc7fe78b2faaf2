"""From a picture to two people's motion: trackers, identity over time, who takes part, lips, and the motion codec.

`facemesh` and `landmarker` find landmarks, `heads` poses them; `reidentification`, `identity` and `people` join tracks
of one person, `participants` chooses two; `lips` and `lip_sync` hold faces against sound; `codec` and `decode` are
motion and back.
"""
