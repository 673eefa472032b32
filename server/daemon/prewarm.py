"""Evaluate prompts before the server is ready, so that the first clients find them in the KV cache."""

import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from engine.job import Finished, FinishReason, Started
from server.config import PrewarmFile
from server.protocol.errors import ApiError

if TYPE_CHECKING:
    from server.api import App
    from server.generation import Generator

log = logging.getLogger("responsed")


async def prewarm(engine: "Generator", app: "App", files: Sequence[PrewarmFile]) -> None:
    """Evaluate the prompts one after the other. Log a prompt that cannot be evaluated: serving does not need it."""
    for file in files:
        began = time.perf_counter()
        try:
            tokens, job = await app.prewarm_job(file.body)
        except ApiError as error:
            log.warning("%s is not prewarmed: %s", file.path, error.message)
            continue
        cached = 0
        with engine.generate(job) as outputs:
            async for output in outputs:
                if isinstance(output, Started):
                    cached = output.cached_tokens
                elif isinstance(output, Finished) and output.reason is FinishReason.FAILED:
                    log.warning("%s is not prewarmed: %s", file.path, output.message)
                elif isinstance(output, Finished):
                    seconds = time.perf_counter() - began
                    log.info(
                        "prewarmed %s: %d tokens, %d of them cached, %.1f s",
                        file.path,
                        tokens,
                        cached,
                        seconds,
                    )
