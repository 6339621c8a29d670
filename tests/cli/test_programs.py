"""Programs that cannot start say why, in a line."""

import pytest

from tests.cli.shell import imagepool

PROGRAMS = ("node", "scheduler", "up")


@pytest.mark.gen_test(timeout=60)
@pytest.mark.parametrize("program", PROGRAMS)
async def test_a_data_folder_that_cannot_be_is_named(program: str, tmp_path) -> None:
    """With what is in its way, and no traceback; exit code 2."""
    (tmp_path / "file").write_text("")
    for lock in ("taken/lock", "taken/node/lock"):
        (tmp_path / lock).mkdir(parents=True)
    for folder in ("/proc/none", str(tmp_path / "file"), str(tmp_path / "taken")):
        ran = await imagepool(program, "--data", folder, "--listen", "127.0.0.1:0", "--no-mdns")
        assert (ran.code, ran.out, len(ran.err.splitlines())) == (2, "", 1), ran.err
        assert ran.err.startswith(f"Error: the data folder {folder}")


@pytest.mark.gen_test(timeout=60)
async def test_a_key_that_is_none_is_named(tmp_path) -> None:
    """It is not replaced: another one would be another program."""
    (tmp_path / "key.pem").write_text("rubbish")
    for program in ("node", "scheduler"):
        ran = await imagepool(program, "--data", str(tmp_path), "--listen", "127.0.0.1:0")
        assert (ran.code, ran.err.splitlines()) == (
            2,
            [f"Error: data: {tmp_path}/key.pem is not an Ed25519 key (expected: our own key)"],
        )
    assert (tmp_path / "key.pem").read_text() == "rubbish"
