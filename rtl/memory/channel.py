"""One HBM pseudo-channel: controller and device."""

from amaranth.hdl import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from ..tech import GENERIC, technology
from .address import access_layout
from .controller import Controller
from .device import Device, Rule, column_command_layout, row_command_layout
from .timing import Timing

__all__ = ["Channel"]


class Channel(wiring.Component):
    """A controller and its device.

    The device only watches that the controller keeps the rules: hardware does without it.

    Parameters
    ----------
    row_bits : int
    timing : Timing
    depth : int
        Bursts in the controller's queue.

    Members
    -------
    request, done, row_hit, activate, refresh
        As in `Controller`.
    illegal, rule : ``Out``
        As in `Device`.
    row, column : ``Out``
        The commands, to be watched.
    """

    def __init__(self, *, row_bits: int, timing: Timing, depth: int = 16) -> None:
        self.controller = Controller(row_bits=row_bits, timing=timing, depth=depth)
        self.device = Device(row_bits=row_bits, timing=timing)
        super().__init__(
            {
                "request": In(stream.Signature(access_layout(row_bits))),
                "done": Out(1),
                "row_hit": Out(1),
                "activate": Out(1),
                "refresh": Out(1),
                "illegal": Out(1),
                "rule": Out(Rule),
                "row": Out(row_command_layout(row_bits)),
                "column": Out(column_command_layout(row_bits)),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        m.submodules.controller = controller = self.controller
        connect(m, flipped(self.request), controller.request)
        m.d.comb += [
            self.row.eq(controller.row),
            self.column.eq(controller.column),
            self.done.eq(controller.done),
            self.row_hit.eq(controller.row_hit),
            self.activate.eq(controller.activate),
            self.refresh.eq(controller.refresh),
        ]
        if technology(platform) == GENERIC:
            m.submodules.device = device = self.device
            m.d.comb += [
                device.row.eq(controller.row),
                device.column.eq(controller.column),
                self.illegal.eq(device.illegal),
                self.rule.eq(device.rule),
            ]
        return m
