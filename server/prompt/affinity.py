"""Affinity groups: whose prompts share a slot of the KV cache, and are forgotten together. Pure."""


def affinity_key(prompt_cache_key: str | None, continuation_id: str | None) -> str | None:
    """Return the name that a client gives to related requests; None if it gives none."""
    return prompt_cache_key or continuation_id or None


def affinity_group(response_id: str, root: str | None, key: str | None, client: str | None) -> str | None:
    """Return the affinity group of a response's prompts; None if it depends on a client that is not known.

    `root`: the stored conversation, or the first response of the chain; None if the response begins one. It is more
    precise than the client's `key`: many applications send one key with every request.
    """
    if root or not key:
        return root or response_id
    return None if client is None else f"{client} {key}"
