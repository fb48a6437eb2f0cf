"""The board on a cluster: all keys of an instrument are in one slot, whichever node has it."""

import subprocess
from collections.abc import Iterator

import pytest
import redis

from rapid.dispatch.board import AsyncBoard, Board
from rapid.dispatch.valkey import free_port, server_binary
from tests.board.conftest import key_of, spec_of, worker

SLOTS = 16384


class Cluster:
    """Three nodes with a third of the slots each."""

    def __init__(self, ports: list[int]):
        self.ports = ports
        self.nodes = [redis.Redis(port=port, protocol=2, decode_responses=True) for port in ports]

    def url(self, place: int) -> str:
        return f"redis://127.0.0.1:{self.ports[place]}/0"

    def owner(self, key: str) -> int:
        """The place of the node that has a key."""
        return self.nodes[0].execute_command("CLUSTER", "KEYSLOT", key) * len(self.ports) // SLOTS


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[Cluster]:
    # The cluster bus listens on a port of its own, 10000 above: it has to be below 65536.
    ports = [port for port in (free_port() for _ in range(200)) if port < 55000][:3]
    if len(ports) < 3:
        ports = [17101, 17102, 17103]
    processes = []
    for port in ports:
        folder = tmp_path_factory.mktemp(f"node{port}")
        command = [str(server_binary()), "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
        process = subprocess.Popen([*command, "--cluster-enabled", "yes"], stdout=subprocess.PIPE)
        processes.append(process)
        assert process.stdout is not None
        assert any(b"Ready to accept" in line for line in process.stdout)
    found = Cluster(ports)
    try:
        for place, node in enumerate(found.nodes):
            begin, end = -(-place * SLOTS // 3), -(-(place + 1) * SLOTS // 3) - 1
            node.execute_command("CLUSTER", "ADDSLOTSRANGE", begin, end)
            node.execute_command("CLUSTER", "SET-CONFIG-EPOCH", place + 1)
        for port in ports[1:]:
            found.nodes[0].execute_command("CLUSTER", "MEET", "127.0.0.1", port)
        for process in processes:
            assert any(b"Cluster state changed: ok" in line for line in process.stdout)
        yield found
    finally:
        for node in found.nodes:
            node.close()
        for process in processes:
            process.kill()
            process.wait()
            process.stdout.close()


@pytest.mark.parametrize("asked", [0, 1, 2])
def test_an_exposure_goes_through_whichever_node_is_asked(cluster: Cluster, asked: int):
    with Board(cluster.url(asked), "LSSTCam") as board:
        board.load()
        board.post(spec_of(asked + 1, range(189)))
        job = board.claim(worker())
        n_done = 0
        while job is not None:
            job = board.complete(job, {"n": 1.0}, claim_next=True)
            n_done += 1
        assert n_done == 189
        gather = board.next_gather("g0", timeout_s=10)
        assert gather is not None
        assert len(gather.finished) == 189
        assert board.complete_gather(gather) == 1
    owner = cluster.owner("rapid:{LSSTCam}:workers")
    for place, node in enumerate(cluster.nodes):
        assert bool(node.dbsize()) == (place == owner), "all keys are on the node of their slot"


async def test_it_does_so_awaited(cluster: Cluster):
    owner = cluster.owner("rapid:{LATISS}:workers")
    async with AsyncBoard(cluster.url((owner + 1) % 3), "LATISS") as board:
        await board.load()
        await board.post(spec_of(1, range(3)))
        job = await board.claim(worker("w9"))
        assert job is not None
        assert job.batch == key_of(1)


def test_instruments_have_slots_of_their_own(cluster: Cluster):
    slots = {
        cluster.nodes[0].execute_command("CLUSTER", "KEYSLOT", f"rapid:{{{name}}}:workers")
        for name in ("LSSTCam", "LATISS")
    }
    assert len(slots) == 2
