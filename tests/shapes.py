"""What checks the shapes that signatures of `visavis.training` state (`visavis.training.shapes`)."""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int is a float
