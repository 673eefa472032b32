"""One frozen Struct; every default once. `settings` says how each is told: flag, environment or file."""

from pathlib import Path

from msgspec import Struct

from engine.job import SamplingParams


class Config(Struct, frozen=True):
    """What `responsed serve` was told."""

    model: str
    host: str = "127.0.0.1"
    port: int = 8080
    threads: int = 0
    """0: one less than the cores this process may use."""
    slots: int = 2
    allow_hosts: tuple[str, ...] = ()
    """Names of this server in Host headers, beside `localhost` and IP addresses."""
    allow_origins: tuple[str, ...] = ()
    """Origins of web pages that may call the server; `*` stands for any."""
    strict_fields: bool = False
    """True if an unknown field of a request is an error."""
    queue: int = 16
    """How many requests may wait for a slot; more are refused."""
    context: int = 0
    """Tokens a slot. 0: what the model was trained on, 8192 at most."""
    engine: str = "auto"
    libllama: Path | None = None
    """llama.cpp's library; None: the one compiled here, else the one in xllamacpp's wheel."""
    chat_template: str | None = None
    """A file with a chat template, or a built-in one's name; None: the model's own."""
    flash_attention: str = "on"
    """Of llama.cpp; "off" may be quicker where texts are long (`responsed tune` tells)."""
    max_step_ms: int = 0
    """How long streams may wait for a part of somebody's prompt; 0: two and a half of their own steps."""
    state: Path | None = None
    """Where the KV cache is kept over a restart; None: systemd's state folder, or XDG's."""
    store: str | None = None
    """The file of stored responses; None: `responses.db` in the state folder; "off": nothing is stored."""
    store_responses: int = 1000
    """How many of them are kept, conversations included: over any of these bounds, the least recently used go."""
    store_megabytes: int = 64
    store_days: int = 30
    """Since the last use."""
    resume_window_seconds: float = 0.0
    """How long a stored stream goes on when its client has left: it may come back for the rest."""
    heartbeat_seconds: float = 10.0
    """The longest silence of a stream before its first item; 0: any."""
    reasoning_events: str = "openai"
    """Whose names the events of reasoning have; "open-responses" calls them otherwise."""
    warm_megabytes: int = 128
    """How much of it; 0: nothing."""
    snapshot_unstored: bool = False
    """True if prompts that are not to be stored (`store: false`) may be in the KV cache on the disk too."""
    aliases: tuple[str, ...] = ()
    """Other names for the model; `*` stands for any."""
    grace_seconds: float = 10.0
    """How long streams may go on after SIGTERM."""
    log_level: str = "info"
    max_body_megabytes: float = 32
    """Megabytes of one request body; all bodies in memory together may have twice as many."""
    body_gap_seconds: float = 20.0
    """The longest silence while a body arrives."""
    sampling: SamplingParams = SamplingParams(temperature=0.8, top_p=0.95, top_k=40, min_p=0.05)
    """What a request that says nothing gets: llama.cpp's defaults. OpenAI's (temperature 1, everything
    allowed) are for models a thousand times larger; small ones lose the thread with them."""

    @property
    def max_body_bytes(self) -> int:
        return int(self.max_body_megabytes * 1e6)


DEFAULTS = Config(model="smollm2")
