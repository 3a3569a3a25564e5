"""What each command takes and says; importing this registers them all."""

from keystep.cli.base import app
from keystep.cli.commands import data, models, running

__all__ = ["app", "data", "models", "running"]
