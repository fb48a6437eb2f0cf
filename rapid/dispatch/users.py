"""Redis users, one for each role: what each may do is in the ``.acl`` files beside this module.

What a server-side function does is checked against the user who calls it, key by key; so a user's keys decide which
functions work for it. `render_users` puts them together as an ACL file, for ``aclfile`` in the server's
configuration.
"""

import hashlib
import re
from collections.abc import Mapping
from importlib import resources

from rapid.dispatch.keys import prefix
from rapid.errors import ConfigurationError, NotFoundError

ROLES = ("head", "worker", "gather", "publish", "ingest", "display", "script", "rubintv", "operator", "admin")

MIN_PASSWORD = 16
"""Redis tries passwords as fast as they are sent; a long random one costs nothing, as no person types it."""


def user_name(role: str) -> str:
    """Return the name of a role's user.

    Examples
    --------
    >>> user_name("worker")
    'rapid-worker'
    """
    return f"rapid-{role}"


def rules_of(role: str, instrument: str) -> list[str]:
    """Return the rules of a role's user on the board of an instrument, as ``ACL SETUSER`` takes them.

    Raises
    ------
    NotFoundError
        Raised for a role that has no user.
    ConfigurationError
        Raised if the instrument's name cannot be part of a key.
    """
    if role not in ROLES:
        raise NotFoundError("role", role, ", ".join(ROLES))
    text = (resources.files("rapid.dispatch") / "acl" / f"{role}.acl").read_text(encoding="utf-8")
    words = [word for line in text.splitlines() if not line.startswith("#") for word in line.split()]
    # Longest first: $PREFIX is followed by the rest of the key without a break.
    return [word.replace("$PREFIX", prefix(instrument)).replace("$INSTRUMENT", instrument) for word in words]


def render_users(instruments: list[str], passwords: Mapping[str, str]) -> str:
    """Return an ACL file with a user for each role that has a password; nobody else may come in.

    Parameters
    ----------
    instruments
        Whose boards the users may reach.
    passwords
        By role. Only their SHA-256 is in the file.

    Raises
    ------
    ConfigurationError
        Raised, naming the role, for a password that is too short or not one word.
    NotFoundError
        Raised for a role that has no user.
    """
    lines = ["user default off resetpass resetkeys resetchannels nocommands"]
    for role, password in passwords.items():
        if len(password) < MIN_PASSWORD or re.search(r"\s", password):
            raise ConfigurationError(role, f"its password must be one word of at least {MIN_PASSWORD} characters")
        # Each instrument's rules begin by taking everything away: only the first may.
        first, *others = (rules_of(role, instrument) for instrument in instruments)
        rules = dict.fromkeys([*first, *(rule for more in others for rule in more if not _takes_away(rule))])
        digest = hashlib.sha256(password.encode()).hexdigest()
        lines.append(f"user {user_name(role)} on #{digest} {' '.join(rules)}")
    return "\n".join(lines) + "\n"


def _takes_away(rule: str) -> bool:
    return rule in {"resetkeys", "resetchannels", "nocommands"} or rule.startswith("-")
