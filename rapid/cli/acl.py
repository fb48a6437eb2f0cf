"""`rapid acl`: the Redis users of the roles, as an ACL file."""

import os
import secrets
from pathlib import Path
from typing import Annotated

import typer

from rapid.errors import ConfigurationError


def acl(
    passwords: Annotated[
        Path,
        typer.Option(
            "--passwords",
            help="Folder with a file of each role's password, named as the role; missing ones are made up and written.",
        ),
    ],
    cameras: Annotated[
        list[str] | None, typer.Option("--camera", help="Camera whose board the users may reach; several if repeated.")
    ] = None,
    roles: Annotated[list[str] | None, typer.Option("--role", help="Only this role; several if repeated.")] = None,
) -> None:
    """Print an ACL file for Redis or Valkey: a user for each role, and nobody else.

    Example: rapid acl --camera LSSTCam --passwords /etc/rapid/redis > users.acl

    Then start the server with --aclfile users.acl, and each role with its own user in the URL:
    RAPID_REDIS_URL=redis://rapid-worker:PASSWORD@host:6379/0
    """
    from rapid.camera.store import load_camera
    from rapid.dispatch.users import ROLES, render_users, rules_of
    from rapid.wiring.settings import make_settings

    chosen = roles or list(ROLES)
    names = [load_camera(name).name for name in cameras or [make_settings().camera]]
    for role in chosen:
        rules_of(role, names[0])  # an unknown role, before anything is written
    print(render_users(names, {role: _password(passwords, role) for role in chosen}), end="")


def _password(folder: Path, role: str) -> str:
    path = folder / role
    try:
        if path.exists():
            return path.read_text(encoding="utf-8").strip()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        password = secrets.token_urlsafe(32)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(password + "\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError("passwords", f"{path}: {error}") from error
    return password


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(acl)
