"""What MATMUL refuses before it works: lengths, formats, alignment."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..config import MAX_K, RELEASE_WORDS, CardConfig
from ..isa import (
    BITS,
    INPUT_FORMATS,
    MAX_ANCHOR,
    MIN_ANCHOR,
    Encoding,
    Format,
    Function,
    MatmulBody,
    MatmulFlag,
    Mode,
    Status,
)

__all__ = ["MatmulChecks"]

_INTEGERS = (Format.INT4, Format.INT8)


class MatmulChecks(wiring.Component):
    """Checks an iteration in the order BAD_LENGTH, BAD_FORMAT, BAD_ALIGNMENT.

    `MatmulBody` says what is refused. Whether K is a whole number of runs is found by subtraction,
    four runs a cycle, which is faster than the runs are read.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    body : ``In(MatmulBody)``
        While ``offered``: the command.
    mode, mode_known : ``In``
        Its `Mode`, and whether it has one.
    blob, x, out : ``In(32)``
        Addresses of the iteration; while ``offered``.
    offered : ``In(1)``
        An iteration is there to be checked, and stays until ``start``.
    start : ``In(1)``
        Checks it; not while ``busy``.
    whole : ``In(1)``
        While ``offered``: the command is to be checked, too, which may be a new one.
    busy : ``Out(1)``
        From the cycle after ``start`` until it is known whether the iteration may run: one cycle
        for all but commands with several runs.
    ends, passed : ``Out(1)``
        The last cycle of ``busy``; the iteration may run.
    failed : ``Out(1)``, status : ``Out(Status)``
        An iteration may not run. Stays until reset.
    """

    def __init__(self, config: CardConfig) -> None:
        self._config = config
        super().__init__(
            {
                "body": In(MatmulBody),
                "mode": In(Mode),
                "mode_known": In(1),
                "blob": In(32),
                "x": In(32),
                "out": In(32),
                "offered": In(1),
                "start": In(1),
                "whole": In(1),
                "busy": Out(1),
                "ends": Out(1),
                "passed": Out(1),
                "failed": Out(1),
                "status": Out(Status),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        body = self.body
        bad_length, bad_format, bad_alignment = Signal(), Signal(), Signal()
        run = Signal(17, reset_less=True)  # half bytes of a run
        # Half bytes of K less one that no run has been found for: less than a run at the end.
        left = Signal(18)
        one, four = Signal(signed(19)), Signal(signed(20))  # what is left after so many runs
        m.d.comb += [one.eq(left - run), four.eq(left - (run << 2))]
        with m.If(~self.busy):
            m.d.sync += [self.busy.eq(self.start), bad_alignment.eq(self._bad_alignment(m))]
            with m.If(self.offered & self.whole):
                m.d.sync += [
                    bad_length.eq(self._bad_length()),
                    bad_format.eq(self._bad_format()),
                    run.eq(body.run_bytes << 1),
                ]
                with m.Switch(body.in_format):
                    for form in INPUT_FORMATS:
                        with m.Case(form):
                            m.d.sync += left.eq(body.k * (BITS[form] // 4) - 1)
                    with m.Default():  # no length to compare: BAD_FORMAT
                        m.d.sync += left.eq((body.run_bytes << 1) - 1)
        with m.Else():
            # Subtracted in every cycle, which makes no late enable; nothing at the end.
            m.d.sync += left.eq(Mux(four < 0, Mux(one < 0, left, one), four))
            with m.If(bad_length | (one < 0)):
                m.d.sync += self.busy.eq(0)
                m.d.comb += self.ends.eq(1)
                with m.If(bad_length | (one != -1)):
                    m.d.sync += [self.failed.eq(1), self.status.eq(Status.BAD_LENGTH)]
                with m.Elif(bad_format):
                    m.d.sync += [self.failed.eq(1), self.status.eq(Status.BAD_FORMAT)]
                with m.Elif(bad_alignment):
                    m.d.sync += [self.failed.eq(1), self.status.eq(Status.BAD_ALIGNMENT)]
                with m.Else():
                    m.d.comb += self.passed.eq(1)
        return m

    def _bad_length(self) -> Value:
        config, body = self._config, self.body
        counts = ("k", "n", "n_inner", "entries", "run_bytes", "runs_inner", "slice")
        sliced = body.slice < body.k
        longest = Mux(sliced, body.slice, body.k)
        rows = config.rows * config.partial_rows
        fewer = config.rows * (config.partial_rows // 2)
        wide = (self.mode == Mode.INT4) & self.mode_known & self._block_scale
        return Cat(
            *(getattr(body, name) == 0 for name in counts),
            body.k > MAX_K,
            (longest > config.operand_depth) & (body.entries > config.rows),
            sliced & ((body.slice % RELEASE_WORDS) != 0),
            sliced & (body.entries > Mux(wide, fewer, rows)),
        ).any()

    @property
    def _block_scale(self) -> Value:
        return (self.body.flags & MatmulFlag.BLOCK_SCALE.value) != 0

    def _bad_format(self) -> Value:
        body = self.body
        integers = Cat(
            Cat(form == integer.value for integer in _INTEGERS).any()
            for form in (body.in_format, body.stream_format)
        ).all()
        window = self.mode == Mode.BF16
        return Cat(
            ~self.mode_known,
            body.out_format >= Format.E2M1.value,
            body.encoding > max(encoding.value for encoding in Encoding),
            body.flags > sum(flag.value for flag in MatmulFlag),
            body.function > max(function.value for function in Function),
            (body.out_format == Format.INT32.value) & (~integers | self._block_scale),
            window & ((body.anchor < MIN_ANCHOR) | (body.anchor > MAX_ANCHOR)),
            ~window & (body.anchor != 0),
            (body.out_format == Format.INT4.value) & body.n_inner[0] & (body.n_inner < body.n),
        ).any()

    def _bad_alignment(self, m: Module) -> Value:
        body = self.body
        x = self.x | body.run_bytes | body.x_run_stride | body.x_run_outer_stride
        x |= body.x_inner_stride | body.x_outer_stride
        out = self.out | body.out_inner_stride | body.out_outer_stride
        x_odd, out_mask = Signal(), Signal(2)
        for format_field, mask in ((body.in_format, x_odd), (body.out_format, out_mask)):
            with m.Switch(format_field):
                for form in Format:
                    if BITS[form] > 8:
                        with m.Case(form):
                            m.d.comb += mask.eq(BITS[form] // 8 - 1)
        return Cat(self.blob[:4].any(), x_odd & x[0], (out_mask & out[:2]).any()).any()
