"""Known weaknesses of dependencies are found in copies of advisory databases, and what cannot be
known is not said.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROGRAM = ROOT / "setup" / "advisories.py"
YESTERDAY, LONG_AGO = "2999-01-01T00:00:00Z", "2020-01-01T00:00:00.123456Z"
"""When an advisory was written: no test gets old before the first."""


def osv(
    *events: dict[str, str], package: str = "Some.Thing", date: str = YESTERDAY, **more: object
):
    """An advisory as OSV has it."""
    affected = {
        "package": {"name": package, "ecosystem": "PyPI"},
        "ranges": [{"type": "ECOSYSTEM", "events": list(events)}],
        **more,
    }
    return {"id": "PYSEC-1", "modified": date, "affected": [affected]}


def audit(folder: Path, version: str, *advisories: object) -> tuple[int, str]:
    """(exit status, what is said) for a lock with this version of some-thing."""
    lock = folder / "requirements.lock"
    lock.write_text(
        f"some-thing=={version} ; sys_platform == 'linux' \\\n    --hash=sha256:0\nother==1\n"
    )
    copy = folder / "copy"
    copy.mkdir(exist_ok=True)
    for number, advisory in enumerate(advisories):
        (copy / f"{number}.json").write_text(json.dumps(advisory))
    ran = subprocess.run(
        [sys.executable, PROGRAM, lock, copy], capture_output=True, text=True, check=False
    )
    assert not ran.stderr, ran.stderr
    return ran.returncode, ran.stdout


FROM_START = ({"introduced": "0"}, {"fixed": "1.10"})
TWICE = ({"introduced": "1.0"}, {"fixed": "1.4"}, {"introduced": "2.0"}, {"last_affected": "2.3"})


@pytest.mark.parametrize(
    ("events", "version", "hit"),
    [
        (FROM_START, "0.1", True),
        (FROM_START, "1.9", True),
        (FROM_START, "1.10rc1", True),
        (FROM_START, "1.10", False),
        (TWICE, "0.9", False),
        (TWICE, "1.3.9", True),
        (TWICE, "1.4", False),
        (TWICE, "2.3", True),
        (TWICE, "2.3.1", False),
        (({"introduced": "1.0"},), "99", True),
        ((), "1.0", False),
    ],
)
def test_which_versions_an_advisory_is_about(tmp_path, events, version, hit) -> None:
    """Those from where a weakness came in until where it is mended, in the order of versions."""
    code, said = audit(tmp_path, version, osv(*events))
    assert code == (1 if hit else 0), said
    assert (f"some-thing {version}: PYSEC-1" in said) is hit


def test_versions_that_are_listed(tmp_path) -> None:
    """Are hit too."""
    assert audit(tmp_path, "1.5", osv(versions=["1.4", "1.5"]))[0] == 1


def test_where_it_is_mended_is_said(tmp_path) -> None:
    """For whoever has to raise a version."""
    assert "mended in 1.10" in audit(tmp_path, "1.0", osv(*FROM_START))[1]


def test_yaml(tmp_path) -> None:
    """As pypa/advisory-database has it, where a date is a date."""
    copy = tmp_path / "copy" / "vulns" / "some-thing"
    copy.mkdir(parents=True)
    (copy / "PYSEC-2.yaml").write_text(
        "id: PYSEC-2\nmodified: 2999-01-01T00:00:00Z\naffected:\n- package:\n    name: some-thing\n"
        "    ecosystem: PyPI\n  ranges:\n  - type: ECOSYSTEM\n    events:\n"
        '    - introduced: "0"\n    - fixed: 2.0.1\n'
    )
    code, said = audit(tmp_path, "2.0")
    assert (code, said.splitlines()[0]) == (1, "some-thing 2.0: PYSEC-2, mended in 2.0.1")


def test_safety_db(tmp_path) -> None:
    """The same for ranges as pip writes them."""
    copy = tmp_path / "copy"
    copy.mkdir()
    said = {"$meta": {"timestamp": 32472144000}, "some_thing": ["<1.2", ">=2.0,<2.2"]}
    (copy / "insecure.json").write_text(json.dumps(said))
    codes = [audit(tmp_path, version)[0] for version in ("1.1", "1.2", "2.1", "2.2")]
    assert codes == [1, 0, 1, 0]


def test_what_is_not_ours(tmp_path) -> None:
    """Another package, another registry, or an advisory that was taken back."""
    elsewhere = osv(*FROM_START)
    elsewhere["affected"][0]["package"]["ecosystem"] = "npm"
    back = {**osv(*FROM_START), "withdrawn": YESTERDAY}
    code, said = audit(tmp_path, "1.0", osv(*FROM_START, package="thing"), elsewhere, back)
    assert code == 0, said
    assert "2 packages, 0 known weaknesses: 0 advisories about 0 of them" in said


def test_old_advisories_say_nothing_of_today(tmp_path) -> None:
    """No success, and of what day they are is said; what they do say is still true."""
    code, said = audit(tmp_path, "2.0", osv(*FROM_START, date=LONG_AGO))
    assert code == 3
    assert "of 2020-01-01" in said
    assert audit(tmp_path, "1.0", osv(*FROM_START, date=LONG_AGO))[0] == 1


def test_a_folder_without_any(tmp_path) -> None:
    """Is no success."""
    code, said = audit(tmp_path, "1.0")
    assert code == 3
    assert "0 advisories" in said
