"""Names and formulas of the figures of a group that are one number."""

RATES = {
    "requests_per_s": ("requests/s", "successful requests / wall time"),
    "output_tokens_per_s": ("output tokens/s overall", "sum(n) / wall time, n = usage.output_tokens"),
    "output_tokens_per_s_per_stream": ("output tokens/s per stream", "sum(n) / sum(e2e)"),
    "prefill_tokens_per_s": ("prefill tokens/s", "(input - cached tokens) / sum(ttft)"),
    "goodput_share": ("share that meets --slo", "requests that meet all objectives / all requests"),
    "goodput_requests_per_s": ("goodput, requests/s", "requests that meet all objectives / wall time"),
    "cached_share": ("share found in a cache", "input_tokens_details.cached_tokens / input"),
    "input_tokens": ("input tokens", "usage.input_tokens, all requests"),
    "output_tokens": ("output tokens", "sum(n)"),
    "wall_s": ("wall time, s", "first start to last read, warm-up apart"),
    "ok": ("answered requests", "requests without an error"),
    "errors": ("failed requests", "requests with an error"),
    "ended_early": ("ended early", "answers that ended before the length that was asked for"),
}
