"""What can be named, and what a broken plug-in does."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from keystep import plugins
from keystep.errors import InputError
from keystep.plugins import HEADS, REGISTRIES, Registry

Run = Callable[..., tuple[int, str, str]]


def test_everything_that_keystep_brings_is_listed_and_follows_its_protocol(shell: Run) -> None:
    status, said, error = shell("plugins", "--json")
    assert status == 0, error
    listed = {(entry["kind"], entry["name"]) for entry in json.loads(said) if entry["source"] == "keystep"}
    assert listed == {(registry.kind, name) for registry in REGISTRIES for name in registry.own}
    status, said, _ = shell("plugins")
    assert status == 0 and "mstcn" in said and "package.module:Name" in said


def test_a_broken_plug_in_is_one_line_that_names_its_package_and_the_others_work(shell: Run, install: Callable) -> None:
    Path("half.py").write_text("import no_such_module\n")
    Path("empty.py").write_text("class Nothing:\n    pass\n")
    install("acme", "keystep.heads", broken="half:Head", empty="empty:Nothing", linear="half:Head")
    install("other", "keystep.heads", fine="keystep.heads.linear:LinearHead")
    status, said, error = shell("plugins", "--json")
    found = {entry["name"]: entry for entry in json.loads(said) if entry["source"] != "keystep"}
    assert status == 1 and not error
    assert (
        "acme 1.0: cannot be imported: ModuleNotFoundError: No module named 'no_such_module'"
        in found["broken"]["problem"]
    )
    assert "acme 1.0: lacks stages, delay, reach, run; see keystep.heads.head.HeadKind" in found["empty"]["problem"]
    assert found["linear"]["problem"] == "keystep has one of this name, which is used"
    assert found["fine"] == {
        **{"kind": "heads", "name": "fine", "problem": ""},
        "source": "other 1.0 (keystep.heads.linear:LinearHead)",
    }
    status, said, _ = shell("plugins")
    assert status == 1 and "heads broken from acme 1.0 (half:Head): head broken of acme 1.0" in said
    with pytest.raises(InputError, match=r"head broken of acme 1\.0: cannot be imported"):
        HEADS.find("broken")


def test_a_name_that_two_packages_give_has_to_be_told_apart(install: Callable) -> None:
    install("acme", "keystep.heads", mean="a:A")
    install("other", "keystep.heads", mean="b:B")
    with pytest.raises(InputError, match=r"head mean: acme 1\.0 and other 1\.0 both have one; name it as package"):
        HEADS.find("mean")


@pytest.mark.parametrize("registry", REGISTRIES, ids=lambda registry: registry.kind)
def test_unknown_names_and_those_that_only_a_file_has_said_are_refused(registry: Registry) -> None:
    with pytest.raises(InputError, match=rf"unknown {registry.noun} 'nonsense'; expected one of "):
        registry.find("nonsense")
    near = next(iter(registry.own))
    with pytest.raises(InputError, match=rf"unknown {registry.noun} '{near}x'; did you mean {near}\?"):
        registry.find(f"{near}x")
    with pytest.raises(InputError, match=r"os:sep: no file may choose the code that runs; .* --plugin os:sep"):
        registry.find("os:sep")
    plugins.allow("os:sep", "os:nothing", "no_such_module:Name")
    with pytest.raises(InputError, match=rf"{registry.noun} os:sep: lacks "):
        registry.find("os:sep")
    for spec in ("os:nothing", "no_such_module:Name"):
        with pytest.raises(InputError, match=f"{registry.noun} {spec}: cannot be imported"):
            registry.find(spec)


def test_what_is_no_plug_in_is_not_allowed(shell: Run) -> None:
    status, _, error = shell("--plugin", "os.getcwd", "plugins")
    assert status == 2 and "plug-in 'os.getcwd': expected package.module:Name" in error


def test_listing_imports_no_torch() -> None:
    code = (
        "import sys; sys.argv = ['keystep', 'plugins', '--json']\n"
        "from keystep.cli import main\n"
        "try: main()\n"
        "finally: assert not {'torch', 'sklearn', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
