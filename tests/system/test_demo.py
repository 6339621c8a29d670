"""The demo, as a newcomer runs it; its ISO boots by BIOS and by UEFI to the line that it
promised.
"""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.system.qemu import boot

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Path:
    """The folder where the demo ran."""
    folder = tmp_path_factory.mktemp("demo")
    ran = subprocess.run(
        [sys.executable, "-m", "imagepool.demo"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    (folder / "output").write_text(ran.stdout + ran.stderr)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return folder


def test_the_demo_shows_a_build_on_a_pool_of_two_nodes(demo) -> None:
    """Both nodes were found by mDNS; the better one built; the log was shown, the digest
    checked.
    """
    output = (demo / "output").read_text()
    assert len(re.findall(r"^(ada|grace) +ready .* mdns ", output, re.MULTILINE)) == 2
    assert "succeeded" in output
    assert "on node grace" in output
    assert "iso: file system" in output
    facts = json.loads((demo / "out" / "imagepool-demo.json").read_text())
    digest = subprocess.run(
        ["sha256sum", demo / facts["iso"]], capture_output=True, text=True, check=True
    )
    assert digest.stdout.split()[0] == facts["sha256"]
    assert facts["sha256"] in output
    assert [path.name for path in (demo / "out").glob("*.iso")] == ["imagepool-demo.iso"]


def test_the_demo_stops_what_it_started(demo) -> None:
    """No program of its pool is left, and no container."""
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
    assert not [line for line in listed.stdout.splitlines() if "--pool demo-" in line]


@pytest.mark.parametrize("firmware", ["bios", "uefi"])
def test_the_iso_boots_to_the_promised_line(demo, firmware, figures) -> None:
    """`imagepool demo: build ID on node NAME, WORD`, on the serial console."""
    facts = json.loads((demo / "out" / "imagepool-demo.json").read_text())
    assert re.fullmatch(
        r"imagepool demo: build [0-9a-f]{32} on node grace, [a-z]+-[0-9a-f]{6}", facts["line"]
    )
    with boot(demo / facts["iso"], firmware=firmware) as machine:
        machine.wait_for(re.escape(facts["line"]), timeout=240)
        seconds = time.monotonic() - machine.started
    figures(f"the demo's ISO, booted by {firmware}, said its line after {seconds:.0f} s")
