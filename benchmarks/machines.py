"""The tests as processors of other makes would run them: ``make test-machines [TESTS=tests/unit/evals]``.

Libraries of matrix products choose their kernels by the processor, and other kernels round otherwise. Each setting
below makes all of them choose those of another processor: MKL and oneDNN (torch), OpenBLAS (numpy), torch's own.

MKL listens to ``MKL_ENABLE_INSTRUCTIONS`` on Intel's processors only. On another make, a library of two lines that is
loaded before it says that this one is Intel's; it needs a C compiler. So "as it is" is not what `make test` runs there.
"""

import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

SETTINGS = {
    "SSE4.2": {
        "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "OPENBLAS_CORETYPE": "Nehalem",
        "ATEN_CPU_CAPABILITY": "default",
    },
    "AVX2": {
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "OPENBLAS_CORETYPE": "Haswell",
        "ATEN_CPU_CAPABILITY": "avx2",
    },
    "as it is": {},
}
SAYS_INTEL = "int mkl_serv_intel_cpu(void) { return 1; }\nint mkl_serv_intel_cpu_true(void) { return 1; }\n"


def main(tests: list[str]) -> int:
    """Run the tests under every setting with one thread and with two; 0 if all passed."""
    names = {name for setting in SETTINGS.values() for name in setting}
    inherited = {name: value for name, value in os.environ.items() if name not in names}
    results: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as scratch:
        forced = intel_everywhere(Path(scratch))
        for threads in (1, 2):
            for name, setting in SETTINGS.items():
                said = [f"OMP_NUM_THREADS={threads}", *(f"{key}={value}" for key, value in setting.items())]
                title = f"{name}, {threads} thread{'s' * (threads > 1)} ({' '.join(said)})"
                print(f"\n== {title}", flush=True)
                environment = inherited | forced | setting | {"OMP_NUM_THREADS": str(threads)}
                workers = "0" if threads == 2 else "2"  # two cores either way
                command = [sys.executable, "-m", "pytest", "-q", "-n", workers, *tests]
                results[title] = subprocess.run(command, env=environment, check=False).returncode
    print("\n== summary")
    for title, status in results.items():
        print(f"{'FAILED' if status else 'passed'}  {title}")
    return int(any(results.values()))


def intel_everywhere(folder: Path) -> dict[str, str]:
    """The environment in which MKL takes its settings on this processor too."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        print("note: these settings are for Linux on x86-64; here they change little or nothing")
        return {}
    if "GenuineIntel" in Path("/proc/cpuinfo").read_text():
        return {}
    library = folder / "intel.so"
    command = ["cc", "-shared", "-fPIC", "-x", "c", "-", "-o", str(library)]
    try:
        subprocess.run(command, input=SAYS_INTEL, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"note: MKL ignores its setting on this processor, and a C compiler is needed to make it listen: {error}")
        return {}
    return {"LD_PRELOAD": str(library)}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
