"""The script of ``make check-gpu``, which has to work where it is run: once, on a machine that is lent for minutes."""

import json
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"


def run_script(*options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *options], capture_output=True, text=True, env=os.environ | environment
    )


def test_every_section_runs_small_on_the_cpu_and_writes_its_results(tmp_path: Path) -> None:
    finished = run_script("--small", "--out", str(tmp_path))
    assert finished.returncode == 0, finished.stdout + finished.stderr
    records = json.loads((tmp_path / "gpu-cpu.json").read_text())
    assert [record["section"] for record in records] == ["attention", "model", "stream", "train", "speed"]
    assert all(check["status"] == "passed" for record in records for check in record["checks"])
    assert records[-1]["timings"]
    text = (tmp_path / "gpu-cpu.md").read_text()
    assert "0 failed, 0 not run" in text and "| matrix product, float32 |" in text


def test_what_a_machine_lacks_is_named_and_the_rest_is_run(tmp_path: Path) -> None:
    (tmp_path / "lightning_fabric.py").write_text("raise ModuleNotFoundError('no', name='lightning_fabric')\n")
    path = os.pathsep.join([str(tmp_path), *sys.path])
    finished = run_script("--small", "--only", "train,stream", PYTHONPATH=path)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "needs lightning_fabric" in finished.stdout and "0 failed" in finished.stdout
    assert "stream = offline" in finished.stdout


def test_a_machine_without_a_gpu_is_told_about_the_small_version() -> None:
    finished = run_script("--only", "attention", CUDA_VISIBLE_DEVICES="")
    assert finished.returncode == 2
    assert "--small" in finished.stderr
