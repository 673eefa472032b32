"""The key for the upstreams is read again at SIGHUP."""

import argparse
from pathlib import Path

import pytest
import trio

from server.api.app import App
from server.cli.reloading import Reloading
from server.config import settings
from server.listening import http_options
from server.upstream import connect
from tests.support.helpers import api_keys, served

pytestmark = pytest.mark.slow

OLD, NEW = "sk-" + "1" * 20, "sk-" + "2" * 20


def write(file: Path, key: str, mode: int = 0o600) -> None:
    file.write_text(key)
    file.chmod(mode)


async def test_reload_reads_the_key_of_the_upstreams_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")  # a reload sets the level, which is restored behind the test
    file, flags = tmp_path / "key", argparse.Namespace(config=None)
    write(file, OLD)
    async with served(keys={"front": OLD}) as upstream:
        chosen = {"RESPONSED_UPSTREAM": upstream.url, "RESPONSED_UPSTREAM_KEY_FILE": str(file)}
        with pytest.MonkeyPatch.context() as patch:
            for name, value in chosen.items():
                patch.setenv(name, value)
            values = settings.resolve(flags, chosen)
            config = settings.config(values)
            found = await trio.to_thread.run_sync(connect, config)
            app = App(config, found.generator(), found, None)
            reloading = Reloading(flags, values, http_options(config), found.reload)
            (replica,) = found.registry.replicas
            assert await found.registry.check(replica)

            upstream.app.keys = api_keys({"front": NEW})
            write(file, NEW, 0o644)  # refused, since others can read it
            reloading.reload(app)
            assert not await found.registry.check(replica)
            assert "the settings stay as they are" in caplog.text

            write(file, NEW)
            reloading.reload(app)
            assert await found.registry.check(replica)
            await replica.client.close_idle()
    assert OLD not in caplog.text
    assert NEW not in caplog.text
