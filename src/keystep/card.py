"""The model card: what a saved model is, of what it was made, and what it is not to be used for, as far as is known."""

from __future__ import annotations

from typing import TYPE_CHECKING

import yaml

from keystep.errors import quoted

if TYPE_CHECKING:
    from keystep.pjepa import PJEPA

MARK = "<!-- Written by keystep. Remove this line to keep your own changes when the model is saved again. -->"

_CARD = """---
library_name: keystep
tags: [video, self-supervised, p-jepa]
---
{mark}

# P-JEPA model

Reads features of {input_dim} numbers a frame{rate} and gives latents of {latent_dim}: {bands}.
Attention: {attention}; live: {live}. Weights: SHA-256 `{weights}`.

```python
import keystep

model = keystep.PJEPA.from_pretrained("THIS FOLDER OR ITS HUB ID")
latents = keystep.encode(model, features)  # (T, {input_dim}) -> (T, {latent_dim})
```

## Trained on

{data}

Licence of these features: {licence}. A model may be bound by the licence of what it was trained on.

## Recipe

{recipe}

## Limits

- It reads features of the backbone, preprocessing and rate that it was trained with; others of the same width are
  accepted, and mean nothing.
- How it does on videos of other people, places or tasks is unknown until it is judged there: `keystep eval`, on videos
  that it has not seen, beside raw features and controls.
- Latents keep what features show of persons and places. They are not anonymous.
{oracle}
## Scores

{scores}
"""
_NO_SCORES = "None were given. They belong to a data set, a split and a probe: `keystep eval` writes them down."


def model_card(model: PJEPA, features_licence: str | None = None, scores: str | None = None) -> str:
    """The card of a model in Markdown, with the head that the Hugging Face hub reads.

    Args:
        features_licence: of the features that it was trained on; None: the card says that it is unknown.
        scores: Markdown, as `keystep.evals.card.card_scores` writes it; None: the card has none.
    """
    config, origin = model.config, model.origin
    live = config.stream_attention
    oracle = "- ORACLE: it needs true segment boundaries, which a live system does not have.\n" if config.oracle else ""
    return _CARD.format(
        mark=MARK,
        input_dim=config.input_dim,
        rate=f" at {origin.rate} Hz" if origin.rate else "",
        latent_dim=model.latent_dim(),
        bands=", ".join(f"{name} {width}" for name, width in model.bands().items()),
        attention=config.attention,
        live="none" if live is None else live,
        weights=model.fingerprint,
        data=_data(model),
        licence="unknown" if features_licence is None else features_licence,
        recipe=_recipe(model),
        oracle=oracle,
        scores=_NO_SCORES if scores is None else scores,
    )


def _data(model: PJEPA) -> str:
    """Folder (its name alone: a path is nobody's business), split, videos, and the hash of what was read."""
    origin = model.origin
    if origin.config is None:
        return "Not known: the model was not loaded from its run."
    data = origin.config.data
    lines = [f"Folder {quoted(data.root.resolve().name)}, {'all videos' if data.split is None else 'training videos'}"]
    lines[0] += "" if data.split is None else f" of split {data.split}"
    lines[0] += f": {len(origin.videos)} videos." if origin.videos else "."
    if origin.data:
        lines.append(f"Fingerprint of the features as they were read: SHA-256 `{origin.data}`.")
    return "\n".join(lines)


def _recipe(model: PJEPA) -> str:
    config = model.origin.config
    if config is None:
        return "Not known; `config.json` has the model's own settings."
    settings = config.model_dump(mode="json", exclude={"data": {"root"}}, exclude_defaults=True)
    return f"What differs from keystep's defaults:\n\n```yaml\n{yaml.safe_dump(settings, sort_keys=False)}```"
