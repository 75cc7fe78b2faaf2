"""How all workers of a run sample: as the first of them settled.

A GPU's free memory decides how many windows are sampled together, and that decides last bits. So the first worker
writes down what it settled, and all others, on this machine or another, now or when the run is resumed, do the same.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from visavis.schemas.errors import UsageError
from visavis.schemas.plain import fitted, read_strict, to_json
from visavis.schemas.sampling import Sampling
from visavis.schemas.storage.store import Store
from visavis.schemas.untrusted import parsing

_log = logging.getLogger(__name__)


def agreed(store: Store, path: str, own: Callable[[], Sampling]) -> Sampling:
    """What the first worker of a run settled, which this one may be.

    Args:
        own: what this worker would settle; asked if nobody has yet.

    Raises:
        UsageError: what lies there is not what a worker writes.
    """
    data = store.peek(path)
    if data is None:
        made = own()
        if store.create(path, f"{to_json(made.model_dump())}\n".encode()):
            _log.info("pairs are %s", made)
            return made
        data = store.peek(path)
    with parsing(lambda why: UsageError(f"{store.root}/{path} is not what a worker writes ({why}); delete it")):
        return fitted(Sampling, read_strict(data or b""))
