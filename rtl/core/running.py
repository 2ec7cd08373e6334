"""What the parts of the compute unit keep of the commands of the iterations under way."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..array.command import describe_streams, stream_command_layout
from ..array.product import offset_of
from ..isa import BITS, Format, MatmulBody, MatmulFlag, Mode
from ..numerics.widen import mode_of
from ..tech.copy import copies

__all__ = ["RunningCommands", "columns_layout", "path_layout"]


def path_layout() -> data.StructLayout:
    """Layout of how results are made from sums.

    ``blocks``: each slice has a scale (`MatmulFlag.BLOCK_SCALE`). The rest is of `MatmulBody`.
    """
    return data.StructLayout(
        {
            "blocks": unsigned(1),
            "out_format": unsigned(8),
            "function": unsigned(8),
            "zero_point": signed(16),
            "clamp_low": signed(16),
            "clamp_high": signed(16),
            "parameter": data.ArrayLayout(unsigned(32), 3),
        }
    )


def columns_layout() -> data.StructLayout:
    """Layout of where the columns of results go: n, n_inner and strides of `MatmulBody`.

    ``size``: bytes of a result. ``nibbles``: results are nibbles; ``size`` is 1 then.
    """
    return data.StructLayout(
        {
            "n": unsigned(16),
            "n_inner": unsigned(16),
            "inner_stride": signed(32),
            "outer_stride": signed(32),
            "size": unsigned(3),
            "nibbles": unsigned(1),
        }
    )


class RunningCommands(wiring.Component):
    """Keeps what is needed of the command of each of two iterations, from its start on.

    Iterations take the two places by turns, the first one after a reset the first. At most two are
    under way, and what is under way has one mode and offset.

    Members
    -------
    body, valid : ``In(MatmulBody)``, ``In(1)``
        The command of the iteration that is next; still while ``valid``, up to the cycle behind
        ``take``. While ``valid`` at most one is under way.
    first : ``In(1)``
        That iteration is the first of its command.
    take : ``In(1)``
        It starts. ``streams``, ``paths`` and ``columns`` belong to it from two cycles later on,
        what else is kept from one.
    mode, offset, weight : ``Out``
        The `Mode`, its `offset_of`, and the exponent of the lowest bit of a fixed-point sum.
    next_mode, next_known : ``Out``
        The mode of ``body``, at once, and whether it has one.
    fits : ``Out(1)``
        Mode and offset are those of ``body``, which is known a cycle after that is valid.
    turn : ``Out(1)``
        The place of the iteration that is next.
    streams, paths, columns : ``Out(...).array(2)``
        `stream_command_layout`, `path_layout` and `columns_layout`.
    same : ``Out(2)``
        The path is that of the iteration before it, which is known four cycles after ``take``.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "body": In(MatmulBody),
                "valid": In(1),
                "first": In(1),
                "take": In(1),
                "mode": Out(Mode),
                "offset": Out(signed(10)),
                "weight": Out(signed(8)),
                "next_mode": Out(Mode),
                "next_known": Out(1),
                "fits": Out(1),
                "turn": Out(1),
                "streams": Out(stream_command_layout()).array(2),
                "paths": Out(path_layout()).array(2),
                "columns": Out(columns_layout()).array(2),
                "same": Out(2),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        body = self.body
        mode, known = mode_of(m, body.stream_format, body.in_format)
        is_window = mode == Mode.BF16
        offset = Signal(signed(10))
        m.d.comb += [
            self.next_mode.eq(mode),
            self.next_known.eq(known),
            offset.eq(Mux(is_window, body.anchor + offset_of(Mode.BF16), offset_of(Mode.FP16))),
        ]
        # Of a window the weight is the anchor, and tells the offset.
        seen, same_mode, same_window = Signal(), Signal(), Signal()
        m.d.sync += [
            seen.eq(self.valid & ~self.take),
            same_mode.eq(mode == self.mode),
            same_window.eq((self.mode != Mode.BF16) | (body.anchor == self.weight)),
        ]
        m.d.comb += self.fits.eq(seen & same_mode & same_window)
        with m.If(self.take):
            m.d.sync += [
                self.turn.eq(~self.turn),
                self.mode.eq(mode),
                self.offset.eq(offset),
                self.weight.eq(Mux(is_window, body.anchor, -48)),
            ]

        places = {
            "streams": describe_streams(m, body),
            "paths": self._path(m),
            "columns": self._columns(m),
        }
        taken = Signal(2)  # of each turn, in the cycle before
        self._compare(m, taken)
        for turn in range(2):
            # ``take`` comes late, and from far: registers enable so many bits.
            taking = self.take & (self.turn == turn)
            enables = copies(m, platform, taking, len(places), name=f"taken{turn}")
            m.d.comb += taken[turn].eq(enables[0])
            for enable, (name, now) in zip(enables, places.items(), strict=True):
                place = Signal(now.shape(), name=f"{name}{turn}", reset_less=True)
                m.d.comb += getattr(self, name)[turn].eq(place)
                with m.If(enable):
                    m.d.sync += place.eq(now)
        return m

    def _compare(self, m: Module, taken: Signal) -> None:
        """Compare the paths of an iteration and the one before it when both are in their places, in
        two steps; nothing is taken meanwhile."""
        placed, compared = Signal(2), Signal(2)  # of each turn
        firsts, differ = Signal(3, reset_less=True), Signal(-(-path_layout().size // 16))
        one, other = (path.as_value() for path in self.paths)
        m.d.sync += [
            placed.eq(taken),
            compared.eq(placed),
            firsts.eq(Cat(self.first, firsts)),
            differ.eq(
                Cat(
                    one[low : low + 16] != other[low : low + 16]
                    for low in range(0, path_layout().size, 16)
                )
            ),
        ]
        for turn, same in enumerate(self.same):
            with m.If(compared[turn]):
                m.d.sync += same.eq(~firsts[2] | ~differ.any())

    def _path(self, m: Module) -> Signal:
        body, path = self.body, Signal(path_layout(), name="path")
        m.d.comb += path.blocks.eq(body.flags[MatmulFlag.BLOCK_SCALE.value.bit_length() - 1])
        for name, _ in path_layout():
            if name != "blocks":
                m.d.comb += path[name].eq(body[name])
        return path

    def _columns(self, m: Module) -> Signal:
        body, columns = self.body, Signal(columns_layout(), name="columns_now")
        m.d.comb += [
            columns.n.eq(body.n),
            columns.n_inner.eq(body.n_inner),
            columns.inner_stride.eq(body.out_inner_stride),
            columns.outer_stride.eq(body.out_outer_stride),
            columns.nibbles.eq(body.out_format == Format.INT4.value),
        ]
        with m.Switch(body.out_format):
            for form, bits in BITS.items():
                with m.Case(form.value):
                    m.d.comb += columns.size.eq(max(bits // 8, 1))
        return columns
