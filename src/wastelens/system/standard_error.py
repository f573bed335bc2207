"""Hold back what libraries write to standard error. A served model takes this file along."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def standard_error_held(*, shown_on_failure: bool = True) -> Iterator[None]:
    """Keep file descriptor 2 in a file; print it if the block fails, unless the error alone is enough."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as aside:
        os.dup2(aside.fileno(), 2)
        try:
            yield
        except BaseException:
            if shown_on_failure:
                aside.seek(0)
                os.write(kept, aside.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)
