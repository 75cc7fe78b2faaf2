"""From sound to who speaks, what is said, and a track for each person.

`activity` and `diarizer` find turns, `attribution` and `odds` give them to faces, `turntaking` asks whether two people
speak with each other; `separator`, `overlaps` and `leakage` make and measure each one's own track; `whisper` writes
down words.
"""
