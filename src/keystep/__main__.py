"""``python -m keystep``."""

from keystep.cli import main

main()
