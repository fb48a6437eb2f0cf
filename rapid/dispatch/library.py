"""The board's server-side functions: where their source is, and how it gets into the server.

The Lua files beside this module are one library, joined in order of their names. The server keeps it
(also over a restart); a role loads it only if the server's differs from its own.
"""

import hashlib
from functools import cache
from importlib import resources

VERSION = "v1"
"""Part of every function's name: two versions of the library can live side by side during a roll-out."""


@cache
def library_source() -> str:
    """Return the whole library, with a function whose name tells its checksum."""
    folder = resources.files("rapid.dispatch") / "lua"
    files = sorted((item for item in folder.iterdir() if item.name.endswith(".lua")), key=lambda item: item.name)
    source = "\n".join(item.read_text(encoding="utf-8") for item in files)
    name = function_name(f"is_{hashlib.sha256(source.encode()).hexdigest()[:16]}")
    return f"{source}\nredis.register_function('{name}', function() return 1 end)\n"


def is_loaded(listing: object) -> bool:
    """Whether a ``FUNCTION LIST`` reply shows this very library."""
    name = library_source().rsplit("redis.register_function('", 1)[1].split("'", 1)[0]
    return name.encode() in repr(listing).encode()


def function_name(name: str) -> str:
    """Return the server's name of a function of the library."""
    return f"rapid_{VERSION}_{name}"
