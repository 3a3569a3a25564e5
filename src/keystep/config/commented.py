"""Print all settings as a commented YAML file, or as a JSON schema for editors."""

from __future__ import annotations

import json
import textwrap

import yaml
from pydantic import BaseModel

from keystep.config import RunConfig
from keystep.config.base import build
from keystep.config.presets import preset_settings


def json_schema() -> str:
    """Return the JSON schema of `RunConfig`."""
    return json.dumps(RunConfig.model_json_schema(), indent=2)


def commented_yaml(preset: str) -> str:
    """Return every setting of a preset as YAML for ``--config``, each with its description as a comment above it."""
    config = build(RunConfig, {"data": {"root": "DATA"}}, preset_settings(preset))
    return "\n".join(_lines(config, 0))


def _lines(config: BaseModel, indent: int) -> list[str]:
    lines = []
    values = config.model_dump(mode="json")
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        comment = " ".join((field.description or "").split())
        lines += [
            " " * indent + line for line in textwrap.wrap(comment, 100, initial_indent="# ", subsequent_indent="# ")
        ]
        if isinstance(value, BaseModel):
            lines += [f"{' ' * indent}{name}:", *_lines(value, indent + 2)]
        else:
            text = (
                yaml.safe_dump(values.get(name, value), default_flow_style=True, width=1000)
                .removesuffix("...\n")
                .strip()
            )
            lines.append(f"{' ' * indent}{name}: {text}")
    return lines
