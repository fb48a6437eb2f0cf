"""The board: what head, workers, gather and display share through Redis.

`Board` blocks, `AsyncBoard` awaits; they have the same methods. Every method is one atomic transition
on the server (one round trip), or waits on a list that the server pushes to. What the server keeps is
listed in `rapid.dispatch.keys`, the transitions are the Lua files in this folder, what is said is
`rapid.dispatch.commands`. Carries invariants I1 and I3 to I8; after a flush the head posts again what
has no result yet (I2).

Any method may raise `StoreError` if the server stays away for ``outage_s`` or cannot serve;
`LeaseLostError` if the caller's lease was given to another; `RefusedError` if it is not entitled.
"""

from rapid.dispatch.async_board import AsyncBoard
from rapid.dispatch.blocking_board import Board
from rapid.dispatch.settings import BACKLOG_AGE_MS, GATHER_LEASE_MS, GRACE_MS, LEASE_MS

__all__ = ["BACKLOG_AGE_MS", "GATHER_LEASE_MS", "GRACE_MS", "LEASE_MS", "AsyncBoard", "Board"]
