"""The table of settings: key, type of value, help text and group of each."""

from msgspec import Struct

from engine.chat_template import BUILT_IN
from engine.model import KV_TYPES
from server.config.values import (
    BOOLEAN,
    COUNT,
    HOST_LIST,
    NAME_LIST,
    PATH,
    PATH_LIST,
    PATTERN_LIST,
    PORT,
    POSITIVE,
    SLOTS,
    STORE,
    TEXT,
    ValueType,
    one_of,
    seconds,
)

PREFIX = "RESPONSED_"
"""Beginning of the variables' names."""

ENGINES = ("auto", "llamacpp", "ctransformers")
SWITCH = ("on", "off")
REASONING_EVENTS = ("openai", "open-responses")
LOG_FORMATS = ("text", "json")
LOG_LEVELS = ("debug", "info", "warning", "error")


class Setting(Struct, frozen=True):
    key: str
    """Key in the configuration file; the names of the flag and the variable are derived from it."""
    type: ValueType
    help: str
    """Help text of the flag; `{}` stands for the default."""
    field: str = ""
    """Field of Config; empty if it is named like the key."""
    former: str = ""
    """Key of an earlier version that works until 0.2.0."""

    @property
    def name(self) -> str:
        return self.field or self.key

    @property
    def flag(self) -> str:
        return _flag(self.key)

    @property
    def former_flag(self) -> str:
        return _flag(self.former) if self.former else ""


def _flag(key: str) -> str:
    return f"--{key.replace('_', '-')}"


GROUPS = {
    "model": (
        Setting("model", TEXT, "GGUF file to serve, or a name that `responsed models` lists (default: {})"),
        Setting(
            "alias", NAME_LIST, "Another model name to accept in requests; '*' accepts any (repeatable)", "aliases"
        ),
        Setting("context", COUNT, "Tokens of context per slot (default: the model's training length, 8192 at most)"),
        Setting("engine", one_of(ENGINES), "Backend that runs the model (default: {})"),
        Setting("libllama", PATH, "Path of the llama.cpp library (default: the installed one)"),
        Setting(
            "chat_template",
            TEXT,
            f"File with a chat template, or one of {', '.join(sorted(BUILT_IN))} (default: the model's own)",
        ),
        Setting(
            "threads",
            COUNT,
            "Threads for steps of one token (default: one less than the cores; measure: `responsed tune`)",
        ),
        Setting(
            "threads_batch",
            COUNT,
            "Threads for steps of several tokens: prompts, drafts, several responses (default: all fast cores)",
        ),
        Setting("flash_attention", one_of(SWITCH), "Use llama.cpp's flash attention (default: {})"),
        Setting(
            "kv_type",
            one_of(KV_TYPES),
            "Type of the KV cache; smaller types cost precision, `responsed tune` measures them (default: {})",
        ),
    ),
    "network": (
        Setting(
            "host",
            HOST_LIST,
            "Address to listen on, or unix:PATH (repeatable), unless systemd passes sockets (default: {})",
            "hosts",
        ),
        Setting("port", PORT, "TCP port to listen on; 0 takes any free port (default: {})"),
        Setting(
            "api_key_file",
            PATH,
            "File of API keys that clients must send, one `name:key` per line (default: systemd's credential "
            "`api-key`, or no keys)",
        ),
        Setting("insecure", BOOLEAN, "Listen beyond this machine without API keys (default: {})"),
        Setting(
            "allow_host",
            NAME_LIST,
            "Name to accept in Host headers, besides localhost and IP addresses (repeatable)",
            "allow_hosts",
        ),
        Setting(
            "allow_origin",
            NAME_LIST,
            "Origin of web pages that may call this server; '*' allows any (repeatable)",
            "allow_origins",
        ),
    ),
    "limits": (
        Setting("slots", SLOTS, "Number of responses to generate at the same time (default: {})"),
        Setting("queue", COUNT, "Number of requests that may wait for a slot; more get a 503 (default: {})"),
        Setting(
            "cache_megabytes",
            COUNT,
            "Megabytes of memory for prompts that have left their slot, to reuse them; 0 turns off this and the KV "
            "snapshots (default: a quarter of the free memory, from 64 to 4000)",
        ),
        Setting(
            "max_step_ms",
            COUNT,
            "Longest step in milliseconds while a response streams (default: 2.5 times its usual step)",
        ),
        Setting(
            "max_output_tokens", COUNT, "Tokens of an answer at most; 0 allows what the context leaves (default: {})"
        ),
        Setting("max_items", POSITIVE, "Input items of a request at most (default: {})"),
        Setting("max_tools", POSITIVE, "Tools of a request at most (default: {})"),
        Setting(
            "answer_timeout",
            seconds(86400),
            "Seconds that an answer may take once it has a slot (default: {})",
            "answer_timeout_seconds",
        ),
        Setting("max_connections", POSITIVE, "Connections at the same time (default: {})"),
        Setting(
            "max_connections_per_address",
            POSITIVE,
            "Connections from one address of another machine at the same time (default: {})",
        ),
        Setting(
            "write_timeout",
            seconds(3600),
            "Seconds that a client may leave sent data unread (default: {})",
            "write_timeout_seconds",
        ),
        Setting(
            "body_timeout", seconds(3600), "Seconds in which a body must arrive (default: {})", "body_timeout_seconds"
        ),
        Setting("max_body_megabytes", POSITIVE, "Largest request body in megabytes (default: {})"),
    ),
    "storage": (
        Setting(
            "state_dir",
            PATH,
            "Folder for stored responses and KV snapshots (default: ~/.local/state/responsed)",
            former="state",
        ),
        Setting("store", STORE, "File for stored responses, or off (default: responses.db in the state folder)"),
        Setting("store_responses", POSITIVE, "Number of responses and conversations to store at most (default: {})"),
        Setting("store_megabytes", POSITIVE, "Megabytes of responses and conversations to store at most (default: {})"),
        Setting("store_days", POSITIVE, "Days to store a response after its last use (default: {})"),
        Setting(
            "kv_snapshot_megabytes",
            COUNT,
            "Megabytes of KV cache to write at shutdown and load at the next start; 0 writes none (default: {})",
            former="warm_megabytes",
        ),
        Setting(
            "snapshot_unstored",
            BOOLEAN,
            "Also write the KV cache of requests with `store: false` to the state folder (default: {})",
        ),
    ),
    "behaviour": (
        Setting(
            "prewarm",
            PATH_LIST,
            "File with instructions, or with a request body (.json), to evaluate before serving (repeatable)",
        ),
        Setting(
            "volatile",
            PATTERN_LIST,
            "Pattern of lines in the instructions, such as a clock, to move to the user's last message; 'clock' "
            "matches dates and times (repeatable)",
        ),
        Setting("strict_fields", BOOLEAN, "Reject requests with unknown fields (default: {})"),
        Setting(
            "resume_window",
            seconds(3600),
            "Seconds to continue a stored stream after its client disconnects (default: {})",
            "resume_window_seconds",
            former="linger",
        ),
        Setting(
            "heartbeat",
            seconds(3600),
            "Seconds of silence before the first token until a heartbeat; 0 sends none (default: {})",
            "heartbeat_seconds",
        ),
        Setting(
            "reasoning_events",
            one_of(REASONING_EVENTS),
            "Specification whose names the reasoning events have (default: {})",
        ),
        Setting(
            "shutdown_timeout",
            seconds(3600),
            "Seconds that streams may run on after SIGTERM (default: {})",
            "shutdown_timeout_seconds",
            former="grace",
        ),
    ),
    "logging": (
        Setting("metrics", BOOLEAN, "Serve Prometheus metrics at /metrics (default: {})"),
        Setting("log_format", one_of(LOG_FORMATS), "Format of the log (default: {})"),
        Setting("log_level", one_of(LOG_LEVELS), "Lowest level of messages to log (default: {})"),
    ),
}
"""Settings by subject, in the order in which `--help` and `--print-config` list them."""

SETTINGS = tuple(setting for group in GROUPS.values() for setting in group)
