import re
from pathlib import Path

import numpy as np
import pytest
import torch


def test_the_python_of_the_docs_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parents[3] / "docs" / "heads.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(40, 6)).astype(np.float32), np.arange(40) // 4
    names = {"features": features, "labels": labels, "validation": [(features, labels)], "chunk": torch.randn(1, 5, 6)}
    exec(compile(code.replace("epochs=50", "epochs=1"), "heads.md", "exec"), names)
    assert names["scores"].shape == (1, 5, 10)  # type: ignore[attr-defined]
    assert (tmp_path / "runs" / "head" / "head.safetensors").exists()
