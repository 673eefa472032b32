"""The token form: upstreams continue tokens, and everything else is done here as with the embedded engine.

`TokenModel` makes the prompts, grammars and jobs of the embedded model. `TokenUpstreams` asks for a job's tokens, under
its grammar. The kinds of servers are in modules of their own.
"""

from server.upstream.tokens.answer import TokenUpstreams
from server.upstream.tokens.model import TokenModelSource
from server.upstream.tokens.probe import TokenProbe, kind_of

__all__ = [
    "TokenModelSource",
    "TokenProbe",
    "TokenUpstreams",
    "kind_of",
]
