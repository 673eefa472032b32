"""The server's configuration: one frozen Struct that states every default once.

A field that is annotated with a type of value and a help text is a setting: `setting` derives its flag, its variable
and its key in the configuration file from the field's name.
"""

from pathlib import Path
from typing import Annotated

from msgspec import Struct

from engine.chat_template import BUILT_IN
from engine.job import SamplingParams
from engine.model import KV_TYPES
from server.config.setting import Names
from server.config.values import (
    BOOLEAN,
    CONNECTORS,
    COUNT,
    DAYS,
    FILES,
    HOSTS,
    MEGABYTES,
    MILLISECONDS,
    NAMES,
    PATH,
    PATTERNS,
    PORT,
    POSITIVE,
    PROXIES,
    SLOTS,
    SOME_MEGABYTES,
    STORE,
    TEXT,
    TOKENS,
    UPSTREAMS,
    URL,
    URLS,
    one_of,
    seconds,
    whole,
)

ENGINES = ("auto", "llamacpp", "ctransformers")
REASONING_EVENTS = ("auto", "openai", "open-responses")
LOG_LEVELS = ("debug", "info", "warning", "error")


class Config(Struct, frozen=True):
    """Options of `responsed serve`. The settings of one subject stand together."""

    model: Annotated[str, TEXT, "GGUF file to serve, or a name that `responsed models` lists (default: {})"] = "smollm2"
    aliases: Annotated[
        tuple[str, ...], NAMES, "Another model name to accept in requests; '*' accepts any (repeatable)", Names("alias")
    ] = ()
    context: Annotated[
        int, TOKENS, "Context length of a slot, in tokens (default: the model's training length, up to 8192)"
    ] = 0
    engine: Annotated[str, one_of(ENGINES), "Backend that runs the model (default: {})"] = "auto"
    libllama: Annotated[Path | None, PATH, "Path of the llama.cpp library (default: the installed one)"] = None
    chat_template: Annotated[
        str | None,
        TEXT,
        f"File with a chat template, or a built-in one: {', '.join(sorted(BUILT_IN))} (default: the model's own)",
    ] = None
    threads: Annotated[
        int,
        COUNT,
        "Threads for steps of one token; see `responsed tune` (default: 0, one less than the cores)",
    ] = 0
    threads_batch: Annotated[
        int, COUNT, "Threads for steps of several tokens: prompts, drafts, streams (default: 0, all fast cores)"
    ] = 0
    flash_attention: Annotated[str, one_of(("on", "off")), "Use llama.cpp's flash attention (default: {})"] = "on"
    kv_type: Annotated[
        str,
        one_of(KV_TYPES),
        "Type of the KV cache; smaller types are less precise, and `responsed tune` compares them (default: {})",
    ] = "f16"
    sampling: SamplingParams = SamplingParams(temperature=0.8, top_p=0.95, top_k=40, min_p=0.05)
    """Sampling parameters of a request that sets none: llama.cpp's defaults. OpenAI's (temperature 1, no cut) suit
    models a thousand times larger; small models lose coherence with them."""

    upstreams: Annotated[
        tuple[str, ...],
        UPSTREAMS,
        "URL of a server with OpenAI's API that generates instead of a local model (repeatable)",
        Names("upstream"),
    ] = ()
    upstream_api: Annotated[
        str,
        one_of(("chat", "completions")),
        "API of the upstreams: chat gets messages, completions gets tokens (default: {})",
    ] = "chat"
    tokenizer: Annotated[
        Path | None, PATH, "GGUF file or tokenizer.json of the upstreams' model, for `--upstream-api completions`"
    ] = None
    upstream_model: Annotated[
        str | None, TEXT, "Name of the model at the upstreams (default: the first that they list)"
    ] = None
    upstream_key_file: Annotated[
        Path | None,
        PATH,
        "File with the API key for the upstreams (default: systemd's credential `upstream-key`, or no key)",
    ] = None
    upstream_slots: Annotated[
        int, whole(1, 4096), "Number of responses that each upstream generates at the same time (default: {})"
    ] = 64
    upstream_connect_timeout_seconds: Annotated[
        float, seconds(3600, 0.1), "Seconds to wait for a connection to an upstream (default: {})"
    ] = 5.0
    upstream_first_byte_timeout_seconds: Annotated[
        float, seconds(86400, 1), "Seconds to wait for the first byte of an upstream's answer (default: {})"
    ] = 300.0
    upstream_idle_timeout_seconds: Annotated[
        float, seconds(86400, 0.1), "Seconds to wait for each further byte of an upstream's answer (default: {})"
    ] = 60.0

    hosts: Annotated[
        tuple[str, ...],
        HOSTS,
        "Address to listen on, or unix:PATH (repeatable), unless systemd passes sockets (default: {})",
        Names("host"),
    ] = ("127.0.0.1",)
    port: Annotated[int, PORT, "TCP port to listen on; 0 takes any free port (default: {})"] = 8080
    api_key_file: Annotated[
        Path | None,
        PATH,
        "File of API keys that clients must send, one `name:key` per line (default: systemd's credential `api-key`, "
        "or no keys)",
    ] = None
    ssl_certfile: Annotated[
        Path | None,
        PATH,
        "File of the TLS certificate and its chain, in PEM; unix sockets stay unencrypted (default: plain HTTP)",
    ] = None
    ssl_keyfile: Annotated[
        Path | None, PATH, "File of the certificate's private key, in PEM (default: the certificate's file)"
    ] = None
    insecure: Annotated[bool, BOOLEAN, "Listen beyond this machine without API keys (default: {})"] = False
    allow_hosts: Annotated[
        tuple[str, ...],
        NAMES,
        "Name to accept in Host headers, besides localhost and IP addresses (repeatable)",
        Names("allow_host"),
    ] = ()
    allow_origins: Annotated[
        tuple[str, ...],
        NAMES,
        "Origin of web pages that may call this server; '*' allows any (repeatable)",
        Names("allow_origin"),
    ] = ()

    allow_mcp: Annotated[
        tuple[str, ...], URLS, "URL of an MCP server that requests may use (repeatable)", Names("allow_mcp")
    ] = ()
    mcp_connectors: Annotated[
        tuple[str, ...],
        CONNECTORS,
        "MCP server that requests name by connector_id, as NAME=URL (repeatable)",
        Names("mcp_connector"),
    ] = ()
    mcp_timeout_seconds: Annotated[float, seconds(3600), "Maximum seconds of an MCP call (default: {})"] = 120.0

    trust_proxies: Annotated[
        tuple[str, ...],
        PROXIES,
        "Address or network of a proxy whose X-Forwarded-For and X-Forwarded-Proto are trusted; unix stands for the "
        "clients of unix sockets (repeatable)",
        Names("trust_proxy"),
    ] = ()

    slots: Annotated[int, SLOTS, "Number of responses to generate at the same time (default: {})"] = 2
    queue: Annotated[
        int, COUNT, "Number of requests of each lane that may wait for a slot; more get a 503 (default: {})"
    ] = 16
    cache_megabytes: Annotated[
        int | None,
        MEGABYTES,
        "Megabytes of memory for the prefix cache of prompts that have left their slot; 0 turns off the cache and the "
        "KV snapshots (default: a quarter of the free memory, from 64 to 4000)",
    ] = None
    max_step_ms: Annotated[
        int, MILLISECONDS, "Maximum milliseconds of a step beside a stream (default: 0, 2.5 times the usual step)"
    ] = 0
    max_prompt_tokens: Annotated[
        int, TOKENS, "Maximum tokens of a prompt; 0 allows the whole context (default: {})"
    ] = 0
    max_output_tokens: Annotated[
        int, TOKENS, "Maximum tokens of an answer; 0 allows the rest of the context (default: {})"
    ] = 4096
    max_items: Annotated[int, POSITIVE, "Maximum input items of a request (default: {})"] = 20_000
    max_tools: Annotated[int, POSITIVE, "Maximum tools of a request (default: {})"] = 512
    max_schema_kilobytes: Annotated[
        int, whole(1, 1024, "kB"), "Maximum kilobytes of the JSON schema of a tool or an answer (default: {})"
    ] = 256
    answer_timeout_seconds: Annotated[
        float, seconds(86400), "Maximum seconds that an answer may use a slot (default: {})"
    ] = 3600.0
    max_connections: Annotated[int, POSITIVE, "Maximum number of open connections (default: {})"] = 1024
    max_connections_per_address: Annotated[
        int, POSITIVE, "Maximum number of open connections from one address of another machine (default: {})"
    ] = 64
    keep_alive_timeout_seconds: Annotated[
        float, seconds(3600, 1), "Seconds that a connection may take to send the head of its next request (default: {})"
    ] = 20.0
    write_timeout_seconds: Annotated[
        float, seconds(3600), "Seconds that a client may leave sent data unread (default: {})"
    ] = 30.0
    body_timeout_seconds: Annotated[float, seconds(3600), "Maximum seconds for a body to arrive (default: {})"] = 300.0
    max_header_kilobytes: Annotated[
        int, whole(1, 1024, "kB"), "Maximum kilobytes of a request's headers (default: {})"
    ] = 32
    max_body_megabytes: Annotated[float, SOME_MEGABYTES, "Maximum megabytes of a request body (default: {})"] = 32
    max_json_depth: Annotated[int, whole(8, 256), "Maximum nesting depth of a JSON body (default: {})"] = 64
    websocket_ping_seconds: Annotated[
        float, seconds(3600, 1), "Seconds of silence on a WebSocket before the server sends a ping (default: {})"
    ] = 20.0
    websocket_idle_timeout_seconds: Annotated[
        float, seconds(86400, 1), "Seconds without a response in progress before a WebSocket is closed (default: {})"
    ] = 600.0
    body_gap_seconds: float = 20.0
    """Longest pause in seconds while a body arrives."""

    state_dir: Annotated[
        Path | None,
        PATH,
        "Folder for stored responses and KV snapshots (default: ~/.local/state/responsed)",
        Names(former="state"),
    ] = None
    store: Annotated[
        str | None,
        STORE,
        "File for stored responses, URL of a PostgreSQL database, or off (default: responses.db in the state folder)",
    ] = None
    advertise: Annotated[
        str | None,
        URL,
        "URL at which other servers on the same database reach this one (default: the address of --host)",
    ] = None
    store_responses: Annotated[int, POSITIVE, "Maximum number of stored responses and conversations (default: {})"] = (
        1000
    )
    store_megabytes: Annotated[
        int, SOME_MEGABYTES, "Maximum megabytes of stored responses and conversations (default: {})"
    ] = 64
    store_days: Annotated[int, DAYS, "Days to keep a response after its last use (default: {})"] = 30
    kv_snapshot_megabytes: Annotated[
        int,
        MEGABYTES,
        "Megabytes of KV cache to write when idle and at shutdown, and to load at the next start; 0 writes none "
        "(default: {})",
        Names(former="warm_megabytes"),
    ] = 128
    snapshot_unstored: Annotated[
        bool, BOOLEAN, "Also write the KV cache of requests with `store: false` to the state folder (default: {})"
    ] = False

    prewarm: Annotated[
        tuple[Path, ...],
        FILES,
        "File with instructions, or with a request body (.json), to evaluate before serving (repeatable)",
    ] = ()
    volatile: Annotated[
        tuple[str, ...],
        PATTERNS,
        "Pattern of lines in the instructions, such as a clock, to move to the user's last message; 'clock' matches "
        "dates and times (repeatable)",
    ] = ()
    strict_fields: Annotated[bool, BOOLEAN, "Reject requests with unknown fields (default: {})"] = False
    resume_window_seconds: Annotated[
        float,
        seconds(3600),
        "Seconds to continue a stored stream after its client disconnects (default: {})",
        Names(former="linger"),
    ] = 0.0
    heartbeat_seconds: Annotated[
        float,
        seconds(3600),
        "Seconds of silence before and between the items of a stream until a heartbeat; 0 sends none (default: {})",
    ] = 10.0
    reasoning_events: Annotated[
        str, one_of(REASONING_EVENTS), "Names of the reasoning events; `auto` depends on the client (default: {})"
    ] = "auto"
    shutdown_timeout_seconds: Annotated[
        float, seconds(3600), "Seconds that streams may run on after SIGTERM (default: {})", Names(former="grace")
    ] = 10.0

    metrics: Annotated[bool, BOOLEAN, "Serve Prometheus metrics at /metrics (default: {})"] = False
    token_times: Annotated[
        bool, BOOLEAN, "Return the times of each token to requests with `return_token_times` (default: {})"
    ] = False
    log_format: Annotated[str, one_of(("text", "json")), "Format of the log (default: {})"] = "text"
    log_content: Annotated[bool, BOOLEAN, "Also log the input and the output of each answer (default: {})"] = False
    log_level: Annotated[str, one_of(LOG_LEVELS), "Lowest level of messages to log (default: {})"] = "info"

    @property
    def max_body_bytes(self) -> int:
        return int(self.max_body_megabytes * 1e6)
