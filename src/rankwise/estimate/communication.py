"""Bytes between devices, and between a device and its host, in one optimizer step; and the seconds they take.

All-gather and reduce-scatter over n devices move (n - 1) / n of the whole through each device, all-reduce twice that
(Rajbhandari et al. 2020, section 7). FSDP and ZeRO-3 gather the parameters in the forward and again in the backward
pass of every micro-batch; FSDP and ZeRO-2 and 3 reduce the gradients of every micro-batch, DDP and ZeRO-1 those of the
step. Communication runs beside arithmetic; the part that does not hide is what costs.
"""

from dataclasses import dataclass

from rankwise.estimate.efficiency import Efficiency
from rankwise.records import DeviceFacts, Setup, Trace

# Between nodes, where nothing else is known: a network card a GPU, of 200 Gb/s, and 400 Gb/s from Hopper on (NVIDIA's
# DGX A100 and H100 reference designs). NCCL's rings use all cards of a node at once.
NETWORK_CARD = 25e9
HOPPER_NETWORK_CARD = 50e9
# The host's side of an offload: PCIe 4.0 x16 where the card's link is not PCIe or not known, and memory that two
# DDR4 sockets stream for Adam (16 bytes read and 12 written a parameter).
HOST_LINK = 25e9
HOST_MEMORY = 50e9
ADAM_BYTES = 28


@dataclass(frozen=True)
class Moves:
    """Bytes through one device: of a micro-batch's forward and backward pass, and of the step; to and from the host, of
    a micro-batch and of the step.
    """

    forward: float
    backward: float
    step: float
    host: float
    host_step: float
    host_update: float


def moves(trace: Trace, setup: Setup) -> Moves:
    """What one device sends and receives. Bytes; `host_update` bytes of memory traffic on the host."""
    others = (setup.world_size - 1) / setup.world_size
    weights, trained = trace.parameter_bytes * others, trace.trained_bytes * others
    parallel = setup.parallel
    gathers = parallel in ("fsdp", "zero3")
    each = trained if parallel in ("fsdp", "zero2", "zero3") else 0.0
    step = {"ddp": 2 * trained, "zero1": 2 * trained, "zero2": trained}.get(parallel, 0.0)
    share = 1 / setup.world_size
    return Moves(
        forward=weights if gathers else 0.0,
        backward=(weights if gathers else 0.0) + each,
        step=step,
        host=(2 * trace.parameter_bytes * (setup.offload == "all") + trace.trained_bytes * (setup.offload != "none"))
        * share,
        host_step=trace.trained_bytes * share * (setup.offload == "optimizer"),
        host_update=trace.trainable_params * share * ADAM_BYTES * (setup.offload != "none"),
    )


def link_rate(device: DeviceFacts, setup: Setup, nodes: int) -> float | None:
    """Bytes per second of one device to the others at the link's peak; the network's between nodes. None: unknown."""
    if nodes == 1:
        return device.link_bytes_per_second
    card = HOPPER_NETWORK_CARD if (device.compute_capability or 0.0) >= 9.0 else NETWORK_CARD
    network = card * setup.world_size / nodes
    return min(network, device.link_bytes_per_second or network)


def host_rate(device: DeviceFacts) -> float:
    """Bytes per second between a device and its host."""
    if device.link and device.link.startswith("PCIe") and device.link_bytes_per_second:
        return min(HOST_LINK, device.link_bytes_per_second)
    return HOST_LINK


def exposed(arithmetic: float, communication: float, reached: Efficiency) -> float:
    """Seconds that communication adds to arithmetic: what is longer, and the part of the shorter that does not hide."""
    return max(0.0, communication - arithmetic) + (1 - reached.overlap) * min(arithmetic, communication)
