"""Redis users of the roles on a test's server."""

import redis

from rapid.dispatch.users import ROLES, render_users, user_name

PASSWORDS = {role: f"the-{role}-has-a-long-password" for role in ROLES}


def add_users(url: str, *instruments: str) -> None:
    """Make the users of an ACL file on a running server. The default user stays, for the test itself."""
    with redis.Redis.from_url(url) as client:
        for line in render_users(list(instruments), PASSWORDS).splitlines()[1:]:
            _, name, *rules = line.split()
            client.execute_command("ACL", "SETUSER", name, "reset", *rules)


def remove_users(url: str) -> None:
    with redis.Redis.from_url(url) as client:
        client.execute_command("ACL", "DELUSER", *(user_name(role) for role in ROLES))


def url_of(role: str, url: str) -> str:
    """Return a server's URL for a role's user."""
    return url.replace("redis://", f"redis://{user_name(role)}:{PASSWORDS[role]}@")
