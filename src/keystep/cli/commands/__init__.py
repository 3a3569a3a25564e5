"""All commands with their options; importing this package registers them."""

from keystep.cli.base import app
from keystep.cli.commands import data, exchange, models, procedures, running, serving

__all__ = ["app", "data", "exchange", "models", "procedures", "running", "serving"]
