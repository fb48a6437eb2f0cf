"""The worker role: claim a job, run its payloads in a child that may be killed, say what came of it."""
