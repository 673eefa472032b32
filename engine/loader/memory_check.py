"""The refusal of a model that needs more memory than this machine has, with the settings that would fit."""

from msgspec.structs import replace

from engine.gguf import Header
from engine.loader import kv_cache
from engine.loader.footprint import CONTEXT_STEP, Footprint, LoadPlan, estimate, size_text, weight_bytes
from engine.loader.machine import memory
from engine.model import BackendOptions, ModelError, TooLittleMemory


def check(plan: LoadPlan) -> Footprint:
    """Return the estimate. Raise TooLittleMemory if it exceeds this machine's memory, with settings that would fit."""
    wanted, name = estimate(plan), plan.path.name
    weights, total = weight_bytes(plan.path, plan.header), memory()
    if weights > total and not wanted.pageable:
        raise TooLittleMemory(
            f"too little memory: the weights of {name} are {size_text(weights)}, and this machine has "
            f"{size_text(total)}; choose a smaller model, or one with fewer bits per weight"
        )
    if not wanted.fits:
        needed, free = size_text(wanted.total), size_text(wanted.available)
        raise TooLittleMemory(
            f"too little memory for {name}: {wanted} make {needed}, and {free} are free; choose {_remedies(plan)}"
        )
    return wanted


def _remedies(plan: LoadPlan) -> str:
    """Return the settings that would fit."""
    found = []
    bare = estimate(replace(plan, prefix_cache=0))
    if plan.prefix_cache and bare.fits:
        found.append(f"--cache-megabytes {(bare.available - bare.required) // 1_000_000}")
    if n_ctx := _fitting_context(plan):
        found.append(f"--context {n_ctx}")
    if remedy := _smaller_kv_cache(plan, n_ctx):
        found.append(remedy)
    return " or ".join(found) or ("fewer --slots or a smaller model" if plan.n_slots > 1 else "a smaller model")


def _smaller_kv_cache(plan: LoadPlan, n_ctx: int) -> str:
    """Return the settings of a quantized KV cache; empty if it has no more than `n_ctx` tokens."""
    small = replace(plan, options=replace(plan.options, kv_type="q8_0"))
    if plan.options.kv_type != "f16" or not _can_have(plan.header, small.options):
        return ""
    more = plan.n_ctx if estimate(small).fits else _fitting_context(small)
    if more <= n_ctx:
        return ""
    return f"--kv-type q8_0 with --context {more}" if more < plan.n_ctx else "--kv-type q8_0"


def _fitting_context(plan: LoadPlan) -> int:
    """Return the largest context below the wanted one that fits; 0 if none does."""
    low, high = 0, (plan.n_ctx - 1) // CONTEXT_STEP
    while low < high:
        middle = (low + high + 1) // 2
        fits = estimate(replace(plan, n_ctx=middle * CONTEXT_STEP)).fits
        low, high = (middle, high) if fits else (low, middle - 1)
    return low * CONTEXT_STEP


def _can_have(header: Header, options: BackendOptions) -> bool:
    try:
        kv_cache.check_type(header, options)
    except ModelError:
        return False
    return True
