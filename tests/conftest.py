"""Interruptions, and one thread for each process that a test runs in or starts: xdist fills every core.

Products here are small. With a thread pool per process, threads wait for one another most of the time.
The libraries read this when they are loaded, so it is said here, before any test module imports them.
"""

import os
import signal
from contextlib import suppress

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # A shell that runs the tests in its background has interruptions ignored, in what they start, too.
    with suppress(ValueError):  # Only the main thread may say so.
        signal.signal(signal.SIGINT, signal.default_int_handler)

for library in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(library, "1")
