"""Video and sound files: opening, pictures on the 25 fps grid, mono sound at 16 kHz, and what lies beside a file.

`opening` and `ffmpeg` decide what is read at all, `video` and `audio` decode, `soundtrack` and `mixing` choose streams
and channels, `limits` and `spans` bound and measure a file, `sidecars` and `given` read turns, boxes and sound beside
it.
"""
