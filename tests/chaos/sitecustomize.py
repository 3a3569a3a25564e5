"""Python imports this as it starts where this folder is on its path, as in the worker processes of `make chaos`."""

import os

from full_disk import FULL, full_as_said

if FULL in os.environ:
    full_as_said()
