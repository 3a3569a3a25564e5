"""Moments that look alike."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from keystep.serve.moments import Building
from keystep.serve.schema import Error, MomentItem, MomentList
from keystep.serve.services import Own
from keystep.serve.waiting import NotYet

router = APIRouter(prefix="/api")


@router.get("/moments", responses={503: {"model": Error}})
def moments(
    own: Own, video: int, slot: Annotated[int, Query(ge=0)], count: Annotated[int, Query(ge=1, le=200)] = 24
) -> MomentList:
    """The moments of all videos that are most like a slot of one, best first; 503 while the index is built."""
    name, slot, _ = own.stretch(video, slot, slot + 1)
    try:
        found = own.moments.find(name, slot, count)
    except Building as error:
        raise NotYet(str(error), error.progress) from error
    items = [
        MomentItem(
            video=own.workspace.number(one.video),
            name=one.video,
            slot=one.slot,
            start=one.start,
            stop=one.stop,
            score=one.score,
        )
        for one in found
    ]
    return MomentList(items=items, exact=own.moments.exact)
