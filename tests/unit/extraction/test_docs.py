import re
from pathlib import Path

import numpy as np
import pytest
from clips import write_clip


def test_the_python_of_the_docs_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parents[3] / "docs" / "extraction.md").read_text()
    stream, mine = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    write_clip(tmp_path / "video.mp4", frames=10, height=32, width=32)
    images = [np.full((48, 64, 3), 10 * index, np.uint8) for index in range(6)]
    names = {"images": images, "times": [index / 4 for index in range(6)]}
    exec(compile(stream, "extraction.md", "exec"), names)
    assert names["made"].features.shape == (6, 1280)  # type: ignore[attr-defined]
    compile(mine, "mine.py", "exec")
    assert "from_callable(" in mine
