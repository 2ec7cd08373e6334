"""What MATMUL refuses before it works: lengths, formats, alignment."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
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
from ..numerics.widen import low_bits
from ..tech import KEEP

__all__ = ["MatmulChecks"]

_INTEGERS = (Format.INT4, Format.INT8)


class MatmulChecks(wiring.Component):
    """Checks an iteration in the order BAD_LENGTH, BAD_FORMAT, BAD_ALIGNMENT.

    `MatmulBody` says what is refused. A command comes from far away: it is taken into a register,
    and looked at a cycle later. Whether K is a whole number of runs is found by subtraction, four
    runs a cycle, which is faster than the runs are read.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    start : ``In(1)``
        Checks an iteration; not while ``busy``.
    body : ``In(MatmulBody)``
        With ``start``: the command.
    mode, mode_known : ``In``
        With ``start``: its `Mode`, and whether it has one.
    blob, x, out : ``In(32)``
        With ``start``: addresses of the iteration.
    whole : ``In(1)``
        With ``start``: the command is to be checked, too, which may be a new one. Else it is the
        one that was checked last.
    busy : ``Out(1)``
        From the cycle after ``start`` until it is known whether the iteration may run: one cycle,
        with ``whole`` two, and more for commands with several runs; one more if it may not.
    ends, passed : ``Out(1)``
        The last cycle of ``busy``; the iteration may run.
    failed : ``Out(1)``, status : ``Out(Status)``
        An iteration may not run. Stays until reset.
    """

    def __init__(self, config: CardConfig) -> None:
        self._config = config
        super().__init__(
            {
                "start": In(1),
                "body": In(MatmulBody),
                "mode": In(Mode),
                "mode_known": In(1),
                "blob": In(32),
                "x": In(32),
                "out": In(32),
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
        # As they were a cycle before: the command that is looked at.
        self._body = body = Signal(MatmulBody, reset_less=True)
        self._mode, self._mode_known = Signal(Mode, reset_less=True), Signal(reset_less=True)
        m.d.sync += [
            body.eq(self.body),
            self._mode.eq(self.mode),
            self._mode_known.eq(self.mode_known),
        ]
        looks = Signal()
        bad_length, bad_format, bad_alignment = Signal(), Signal(), self._bad_alignment(m, looks)
        # What is wrong, each in a register.
        found_lengths, found_formats = self._bad_length(), self._bad_format()
        lengths, formats = (
            Signal(len(found), name=name)
            for name, found in (("lengths", found_lengths), ("formats", found_formats))
        )
        m.d.comb += [bad_length.eq(lengths.any()), bad_format.eq(formats.any())]
        # Half bytes of a run, and those less one.
        run, run_less = Signal(17, reset_less=True), Signal(17, reset_less=True)
        # It is known that the iteration may not run: why is said in the next cycle.
        refused, uneven, bad = Signal(), Signal(reset_less=True), Signal()
        # Half bytes of K less one that no run has been found for: less than a run at the end.
        left = Signal(18)
        one, four = Signal(signed(19)), Signal(signed(20))  # what is left after so many runs
        # Whether a run is left: kept by twos of bits, of which synthesis would make a chain.
        equal = Signal(len(left) // 2, attrs=KEEP)
        m.d.comb += [
            one.eq(left - run),
            four.eq(left - (run << 2)),
            *(
                bit.eq(left.word_select(i, 2) == Cat(run_less, Const(0, 1)).word_select(i, 2))
                for i, bit in enumerate(equal)
            ),
        ]
        no_format = Signal(reset_less=True)  # so there is no length to compare
        with m.If(looks):
            m.d.sync += [
                looks.eq(0),
                lengths.eq(found_lengths),
                formats.eq(found_formats),
                run.eq(body.run_bytes << 1),
                run_less.eq(Cat(1, (body.run_bytes - 1)[:16])),
                left.eq(self._half_bytes_less(m)),
                no_format.eq(~Cat(body.in_format == form for form in INPUT_FORMATS).any()),
            ]
        with m.Elif(~self.busy):
            m.d.sync += [self.busy.eq(self.start), looks.eq(self.start & self.whole)]
        with m.Elif(refused):
            m.d.sync += [self.busy.eq(0), refused.eq(0), self.failed.eq(1)]
            m.d.comb += self.ends.eq(1)
            with m.If(bad_length | uneven):
                m.d.sync += self.status.eq(Status.BAD_LENGTH)
            with m.Elif(bad_format):
                m.d.sync += self.status.eq(Status.BAD_FORMAT)
            with m.Else():
                m.d.sync += self.status.eq(Status.BAD_ALIGNMENT)
        with m.Else():
            # Subtracted in every cycle, which makes no late enable; nothing at the end.
            m.d.sync += left.eq(Mux(four < 0, Mux(one < 0, left, one), four))
            m.d.comb += [
                bad.eq(bad_length | bad_format | bad_alignment),
                self.passed.eq(equal.all() & ~bad),
            ]
            m.d.sync += uneven.eq(~no_format & ~equal.all())
            with m.If(self.passed):
                m.d.sync += self.busy.eq(0)
                m.d.comb += self.ends.eq(1)
            with m.Elif(bad_length | no_format | (one < 0)):
                m.d.sync += refused.eq(1)
        return m

    def _half_bytes_less(self, m: Module) -> Signal:
        """Return the half bytes of K, less 1; void if the input has no format.

        The 1 is subtracted before the format is looked at, in which three bits tell inputs apart.
        """
        k_less, result = Signal(16), Signal(18)
        m.d.comb += k_less.eq(self._body.k - 1)
        with m.Switch(low_bits(self._body.in_format)):
            for bits in (4, 8):
                with m.Case(*(form.value for form in INPUT_FORMATS if BITS[form] == bits)):
                    hops = bits // 8
                    m.d.comb += result.eq(Cat(Const((1 << hops) - 1, hops), k_less))
            with m.Default():
                m.d.comb += result.eq(Cat(Const(3, 2), k_less))
        return result

    def _bad_length(self) -> Value:
        config, body = self._config, self._body
        counts = ("k", "n", "n_inner", "entries", "run_bytes", "runs_inner", "slice")
        sliced = body.slice < body.k
        longest = Mux(sliced, body.slice, body.k)
        rows = config.rows * config.partial_rows
        fewer = config.rows * (config.partial_rows // 2)
        wide = (self._mode == Mode.INT4) & self._mode_known & self._block_scale
        return Cat(
            Cat(getattr(body, name) == 0 for name in counts).any(),
            body.k > MAX_K,
            (longest > config.operand_depth) & (body.entries > config.rows),
            sliced & ((body.slice % RELEASE_WORDS) != 0),
            sliced & (body.entries > Mux(wide, fewer, rows)),
        )

    @property
    def _block_scale(self) -> Value:
        return (self._body.flags & MatmulFlag.BLOCK_SCALE.value) != 0

    def _bad_format(self) -> Value:
        body = self._body
        integers = Cat(
            Cat(form == integer.value for integer in _INTEGERS).any()
            for form in (body.in_format, body.stream_format)
        ).all()
        window = self._mode == Mode.BF16
        return Cat(
            ~self._mode_known,
            body.out_format >= Format.E2M1.value,
            body.encoding > max(encoding.value for encoding in Encoding),
            body.flags > sum(flag.value for flag in MatmulFlag),
            body.function > max(function.value for function in Function),
            (body.out_format == Format.INT32.value) & (~integers | self._block_scale),
            window & ((body.anchor < MIN_ANCHOR) | (body.anchor > MAX_ANCHOR)),
            ~window & (body.anchor != 0),
            (body.out_format == Format.INT4.value) & body.n_inner[0] & (body.n_inner < body.n),
        )

    def _bad_alignment(self, m: Module, looks: Value) -> Value:
        """Say what is wrong with the addresses that came with ``start``, or with the strides of the
        command, which are kept when it ``looks``."""
        body = self._body
        x = body.run_bytes | body.x_run_stride | body.x_run_outer_stride
        x |= body.x_inner_stride | body.x_outer_stride
        out = body.out_inner_stride | body.out_outer_stride
        # The bits that have to be 0.
        x_odd, out_mask = Signal(), Signal(2)
        for format_field, mask in ((body.in_format, x_odd), (body.out_format, out_mask)):
            # Where more than the low bits are set it is a bad format, which counts first.
            with m.Switch(low_bits(format_field)):
                for form in Format:
                    if BITS[form] > 8:
                        with m.Case(form.value):
                            m.d.comb += mask.eq(BITS[form] // 8 - 1)
        masks, strides_bad = Signal(3, reset_less=True), Signal(reset_less=True)
        with m.If(looks):
            m.d.sync += [
                masks.eq(Cat(x_odd, out_mask)),
                strides_bad.eq((Cat(x_odd, out_mask) & Cat(x[0], out[:2])).any()),
            ]
        blob_bad, low = Signal(reset_less=True), Signal(3, reset_less=True)
        with m.If(~self.busy):
            m.d.sync += [blob_bad.eq(self.blob[:4].any()), low.eq(Cat(self.x[0], self.out[:2]))]
        return blob_bad | strides_bad | (masks & low).any()
