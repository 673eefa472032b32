"""Names and formulas of the figures of a group that are one number, in the order of the tables."""

RATES = {
    "input_tokens": ("input tokens", "usage.input_tokens, all requests"),
    "cached_share": ("share found in a cache", "input_tokens_details.cached_tokens / input"),
    "prefill_tokens_per_s": ("prefill tokens/s", "(input - cached tokens) / sum(ttft)"),
    "output_tokens": ("output tokens", "sum(n), n = usage.output_tokens"),
    "output_tokens_per_s": ("output tokens/s overall", "sum(n) / wall time"),
    "output_tokens_per_s_per_stream": ("output tokens/s per stream", "sum(n) / sum(e2e)"),
    "requests_per_s": ("requests/s", "successful requests / wall time"),
    "goodput_share": ("share that meets --slo", "requests that meet all objectives / all requests"),
    "goodput_requests_per_s": ("goodput, requests/s", "requests that meet all objectives / wall time"),
    "wall_s": ("wall time, s", "first start to last read, warm-up apart"),
}
"""Figure -> its name in tables, and its formula in words."""
