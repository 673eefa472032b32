"""The server's configuration: one frozen Struct that states every default once.

`settings` maps each field to its flag, variable and key.
"""

from pathlib import Path

from msgspec import Struct

from engine.job import SamplingParams


class Config(Struct, frozen=True):
    """Options of `responsed serve`."""

    model: str
    """Path of a GGUF file, or a name of the catalog."""
    aliases: tuple[str, ...] = ()
    """Other names of the model in requests; `*` stands for any."""
    context: int = 0
    """Tokens of context per slot; 0: the length the model was trained on, 8192 at most."""
    engine: str = "auto"
    """Backend that runs the model, or "auto"."""
    libllama: Path | None = None
    """llama.cpp's library; None: the one compiled here, else the one in xllamacpp's wheel."""
    chat_template: str | None = None
    """File with a chat template, or the name of a built-in one; None: the model's own."""
    threads: int = 0
    """Threads for steps of one token; 0: the fast cores this process may use, but not all of its cores."""
    threads_batch: int = 0
    """Threads for steps of several tokens, such as prompts, drafts and several responses; 0: all fast cores."""
    flash_attention: str = "on"
    """llama.cpp's flash attention, "on" or "off"; "off" may be faster with long prompts (`responsed tune` measures)."""
    kv_type: str = "f16"
    """Type of the numbers in llama.cpp's KV cache; the others than f16 take less memory and cost precision."""
    sampling: SamplingParams = SamplingParams(temperature=0.8, top_p=0.95, top_k=40, min_p=0.05)
    """Sampling parameters of a request that sets none: llama.cpp's defaults. OpenAI's (temperature 1, no cut) suit
    models a thousand times larger; small models lose coherence with them."""

    hosts: tuple[str, ...] = ("127.0.0.1",)
    """Addresses to listen on; `unix:PATH` is a unix socket. Sockets from systemd replace them."""
    port: int = 8080
    """TCP port; 0: any free port."""
    api_key_file: Path | None = None
    """File of API keys, one `name:key` per line; None: systemd's credential `api-key`, or no keys."""
    insecure: bool = False
    """True if other machines may call the server without a key."""
    allow_hosts: tuple[str, ...] = ()
    """Names accepted in Host headers, besides `localhost` and IP addresses."""
    allow_origins: tuple[str, ...] = ()
    """Origins of web pages that may call the server; `*` stands for any."""

    slots: int = 2
    """Responses generated at the same time."""
    queue: int = 16
    """Requests that may wait for a slot; the server refuses more."""
    cache_megabytes: int | None = None
    """Megabytes of memory for prompts that have left their slot; 0: none; None: a quarter of the free memory, from 64
    to 4000."""
    max_step_ms: int = 0
    """Longest step in milliseconds while a response streams; 0: 2.5 of its own decode steps."""
    max_output_tokens: int = 4096
    """Tokens of an answer at most, and of one whose request sets no limit; 0: what the context leaves."""
    answer_timeout_seconds: float = 3600.0
    """Seconds that one answer may take from its slot to its end."""
    max_items: int = 20_000
    """Input items of a request."""
    max_tools: int = 512
    """Tools of a request."""
    max_connections: int = 1024
    """Connections at the same time, as far as file descriptors allow."""
    max_connections_per_address: int = 64
    """Connections from one address of another machine."""
    write_timeout_seconds: float = 30.0
    """Seconds that a client may leave a full send buffer unread."""
    body_timeout_seconds: float = 300.0
    """Longest time in seconds for a whole body to arrive."""
    max_body_megabytes: float = 32
    """Megabytes of one request body; all bodies in memory together may have twice as many."""
    body_gap_seconds: float = 20.0
    """Longest pause in seconds while a body arrives."""

    state_dir: Path | None = None
    """Folder of stored responses and KV snapshots; None: systemd's state folder, or XDG's."""
    store: str | None = None
    """File of stored responses; None: `responses.db` in the state folder; "off": store nothing."""
    store_responses: int = 1000
    """Stored responses and conversations at most. Beyond any bound the store deletes the least recently used."""
    store_megabytes: int = 64
    """Megabytes of stored responses and conversations at most."""
    store_days: int = 30
    """Days of serving after its last use until the store deletes a response."""
    kv_snapshot_megabytes: int = 128
    """Megabytes of KV cache written to the state folder at shutdown; 0: none."""
    snapshot_unstored: bool = False
    """True if KV snapshots may include prompts of requests with `store: false`."""

    prewarm: tuple[Path, ...] = ()
    """Files with prompts that are evaluated before the server is ready."""
    volatile: tuple[str, ...] = ()
    """Patterns of lines of the instructions that move behind the stable part of the prompt."""
    strict_fields: bool = False
    """True if an unknown field of a request is an error."""
    resume_window_seconds: float = 0.0
    """Seconds that a stored stream runs on after its client disconnects, so that the client can resume it."""
    heartbeat_seconds: float = 10.0
    """Seconds of silence before a stream's first item until a heartbeat; 0: no heartbeats."""
    reasoning_events: str = "openai"
    """Specification that names the reasoning events: "openai" or "open-responses"."""
    shutdown_timeout_seconds: float = 10.0
    """Seconds that streams may run on after SIGTERM."""

    metrics: bool = False
    """True if `/metrics` serves Prometheus metrics."""
    log_format: str = "text"
    """Format of the log: "text" or "json", one object a line."""
    log_level: str = "info"
    """Lowest level of the messages in the log."""

    @property
    def max_body_bytes(self) -> int:
        return int(self.max_body_megabytes * 1e6)


DEFAULTS = Config(model="smollm2")
