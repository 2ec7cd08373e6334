"""What MATMUL refuses before it works: lengths, formats, alignment."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value
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
        With ``start``: the command.
    mode, mode_known : ``In``
        With ``start``: its `Mode`, and whether it has one.
    blob, x, out : ``In(32)``
        Addresses of the iteration; only with ``start``.
    start : ``In(1)``
        Checks an iteration; not while ``busy``.
    whole : ``In(1)``
        With ``start``: checks the command, too, which may be a new one.
    busy : ``Out(1)``
        From the cycle after ``start`` until it is known whether the iteration may run: one cycle
        for all but commands with several runs.
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
                "start": In(1),
                "whole": In(1),
                "busy": Out(1),
                "failed": Out(1),
                "status": Out(Status),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        body = self.body
        bad_length, bad_format, bad_alignment = Signal(), Signal(), Signal()
        left = Signal(18)  # half bytes of K that no run has been found for; one run's at the end
        run = Signal(17, reset_less=True)  # its half bytes
        with m.If(self.start):
            m.d.sync += [self.busy.eq(1), bad_alignment.eq(self._bad_alignment(m))]
            with m.If(self.whole):
                m.d.sync += [
                    bad_length.eq(self._bad_length()),
                    bad_format.eq(self._bad_format()),
                ]
                m.d.sync += run.eq(body.run_bytes << 1)
                with m.Switch(body.in_format):
                    for form in INPUT_FORMATS:
                        with m.Case(form):
                            m.d.sync += left.eq(body.k * (BITS[form] // 4))
                    with m.Default():  # no length to compare: BAD_FORMAT
                        m.d.sync += left.eq(body.run_bytes << 1)
        with m.Elif(self.busy):
            with m.If((left > run << 2) & ~bad_length):
                m.d.sync += left.eq(left - (run << 2))
            with m.Elif((left > run) & ~bad_length):
                m.d.sync += left.eq(left - run)
            with m.Else():
                m.d.sync += self.busy.eq(0)
                with m.If(bad_length | (left != run)):
                    m.d.sync += [self.failed.eq(1), self.status.eq(Status.BAD_LENGTH)]
                with m.Elif(bad_format):
                    m.d.sync += [self.failed.eq(1), self.status.eq(Status.BAD_FORMAT)]
                with m.Elif(bad_alignment):
                    m.d.sync += [self.failed.eq(1), self.status.eq(Status.BAD_ALIGNMENT)]
        return m

    def _bad_length(self) -> Value:
        config, body = self._config, self.body
        counts = ("k", "n", "n_inner", "entries", "run_bytes", "runs_inner", "slice")
        sliced = body.slice < body.k
        longest = Mux(sliced, body.slice, body.k)
        rows = config.rows * config.partial_rows
        fewer = config.rows * (config.partial_rows // 2)
        wide = (self.mode == Mode.INT4) & self._block_scale
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
