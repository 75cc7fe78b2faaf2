"""Files wherever they lie: read within bounds, written whole or not at all, and whose fault a failing read is.

`store` is a run's or dataset's folder; `files` opens any path or URL, `web` and `inside` are its doors to servers and
to folders of this machine; `faults` tells the data's fault from the machine's; `user_files` reads the models that a
user names.
"""
