"""Learning from the labels, and what to label next."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from keystep.serve.schema import SuggestionItem, Suggestions
from keystep.serve.services import Own

router = APIRouter(prefix="/api")


@router.get("/learning")
def learning(own: Own) -> dict[str, Any]:
    """How far learning is, and how good what was learned is."""
    return own.learner.status()


@router.post("/learning", status_code=202)
def start(own: Own) -> dict[str, Any]:
    """Learn from what is labelled now."""
    own.learner.start()
    return own.learner.status()


@router.delete("/learning")
def cancel(own: Own) -> dict[str, Any]:
    """Stop learning; what was learned before stays."""
    own.learner.cancel()
    return own.learner.status()


@router.get("/suggestions")
def suggestions(own: Own, count: Annotated[int, Query(ge=1, le=100)] = 5) -> Suggestions:
    """What to label next, best first."""
    items = [
        SuggestionItem(
            video=own.workspace.number(found.video),
            name=found.video,
            start=found.start,
            stop=found.stop,
            reason=found.reason,
            score=found.score,
        )
        for found in own.learner.suggestions(count)
    ]
    return Suggestions(items=items)
