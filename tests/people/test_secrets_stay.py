"""Tokens, passwords and cookies: whatever a program writes, none of them is in it."""

import asyncio
import hashlib
import json
import sys
from pathlib import Path

import aiohttp
import pytest

from protocol.api.callers import csrf_token
from tests.cli.shell import ROOT, clean, imagepool

WRONG = "imagepool-aaaabbbb-" + "w" * 26
PASSWORD, GUESS = "correct horse battery", "a guess that is wrong"
EVERYTHING = {"IMAGEPOOL_LOG_LEVEL": "debug", "IMAGEPOOL_LOG_FORMAT": "json"}


async def ask(session: aiohttp.ClientSession, method: str, url: str, **how: object) -> int:
    """One request; its status."""
    async with session.request(method, url, **how) as answer:
        await answer.read()
        return answer.status


async def use(url: str, token: str) -> set[str]:
    """Show the program every kind of secret, right and wrong; what was shown."""
    bearer = {"Authorization": f"Bearer {token}"}
    shown = {token, WRONG, PASSWORD, GUESS}
    jar = aiohttp.CookieJar(unsafe=True)
    async with aiohttp.ClientSession(cookie_jar=jar) as browser:
        for headers, status in ((bearer, 200), ({"Authorization": f"Bearer {WRONG}"}, 401)):
            assert await ask(browser, "GET", f"{url}/api/v1/builds", headers=headers) == status
        pasted = f"{url}/api/v1/tokens/{token}"  # where its name belongs
        assert await ask(browser, "DELETE", pasted, headers=bearer) == 404
        made = {"role": "admin", "password": PASSWORD}
        path = f"{url}/api/v1/users/ada"
        assert await ask(browser, "PUT", path, json=made, headers=bearer) == 200
        for body in ({**made, "x": 1}, {**made, "role": "king"}, {"role": "admin", "password": 5}):
            assert await ask(browser, "PUT", path, json=body, headers=bearer) == 400
        log_in = f"{url}/api/v1/session"
        wrong = {"name": "ada", "password": GUESS}
        assert await ask(browser, "POST", log_in, json=wrong) == 401
        assert await ask(browser, "POST", log_in, json={"name": "ada", "password": PASSWORD}) == 200
        (cookie,) = (morsel.value for morsel in jar)
        shown |= {cookie, csrf_token(cookie)}
        assert await ask(browser, "DELETE", log_in, headers={"X-CSRF-Token": WRONG}) == 403
        proof = {"X-CSRF-Token": csrf_token(cookie)}
        assert await ask(browser, "GET", f"{url}/api/v1/tokens", headers={}) == 200
        async with browser.post(
            f"{url}/api/v1/tokens", json={"name": "ci", "role": "user"}, headers=proof
        ) as answer:
            shown.add((await answer.json())["token"])
        assert await ask(browser, "DELETE", log_in, headers=proof) == 204
    return shown


@pytest.mark.parametrize("program", ["node", "scheduler"])
@pytest.mark.gen_test(timeout=60)
async def test_nothing_that_is_written_has_one(tmp_path: Path, program: str) -> None:
    """Not the log, with everything in it; not the files of its data folder; nor have they the
    plain digest of one, which a list of passwords would find.
    """
    data = tmp_path / "data"
    ran = await imagepool(
        *("token", "create", "root", "--role", "admin", "--program", program, "--data", str(data))
    )
    token = ran.out.strip()
    flags = ("--listen", "127.0.0.1:0", "--no-mdns", "--data", str(data))
    dummy = ("--engine", "dummy") if program == "node" else ()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "imagepool", program, *flags, *dummy),
        cwd=ROOT,
        env=clean(EVERYTHING),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    ready = (await process.stdout.readline()).decode().split()
    try:
        shown = await use(ready[1], token)
        on_disk = written(data)
    finally:
        process.terminate()
        out, err = await process.communicate()
    assert [json.loads(line) for line in err.splitlines()]
    on_disk |= written(data)
    texts = {"stdout": out, "stderr": err, **on_disk}
    assert "audit.db" in texts
    assert "access.db" in texts
    for secret in shown:
        # A token's name part is its id: what follows is the secret.
        core = secret.rpartition("-")[2] if secret.startswith("imagepool-") else secret
        forms = (core.encode(), hashlib.sha256(core.encode()).hexdigest().encode())
        for name, text in texts.items():
            assert not any(form in text for form in forms), (name, secret)


def written(folder: Path) -> dict[str, bytes]:
    """Each file of a folder, by name."""
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
