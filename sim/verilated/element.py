"""A component as C++ over vectors: what sixteen of its kind do in a cycle, cell by cell.

It is made from the netlist that Amaranth makes Verilog of, so that there is no second description
of a component. A signal is a number of 32 or 64 bits for each element; bits above its width are 0.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence

from amaranth.hdl import _nir

__all__ = ["CHUNK", "PRELUDE", "Element", "Expressions", "Unsuitable", "Variable", "declared"]

CHUNK = 16
"""Elements of a vector."""

PRELUDE = f"""\
#include <cstdint>
#include <cstring>

namespace {{

typedef uint32_t V32 __attribute__((vector_size({4 * CHUNK}), aligned(64)));
typedef uint64_t V64 __attribute__((vector_size({8 * CHUNK}), aligned(64)));

inline V32 load(const uint32_t* from) {{ V32 v; std::memcpy(&v, from, sizeof v); return v; }}
inline V64 load(const uint64_t* from) {{ V64 v; std::memcpy(&v, from, sizeof v); return v; }}
inline void store(uint32_t* to, V32 v) {{ std::memcpy(to, &v, sizeof v); }}
inline void store(uint64_t* to, V64 v) {{ std::memcpy(to, &v, sizeof v); }}
inline V32 all32(uint32_t x) {{ return x + V32{{}}; }}
inline V32 all32(V32 x) {{ return x; }}
inline V64 all64(uint64_t x) {{ return x + V64{{}}; }}
inline V64 all64(V64 x) {{ return x; }}
inline uint64_t wide(uint32_t x) {{ return x; }}
inline V64 wide(V32 x) {{ return __builtin_convertvector(x, V64); }}
inline uint32_t narrow(uint64_t x) {{ return static_cast<uint32_t>(x); }}
inline V32 narrow(V64 x) {{ return __builtin_convertvector(x, V32); }}
inline uint32_t bit(bool x) {{ return x; }}
template <typename Mask> inline V32 bit32(Mask mask) {{ return (V32)mask & 1u; }}
template <typename Mask> inline V32 bit64(Mask mask) {{ return narrow((V64)mask & uint64_t{{1}}); }}
inline V32 choose(V32 c, V32 a, V32 b) {{ return (c != 0u) ? a : b; }}
inline V64 choose(V32 c, V64 a, V64 b) {{ return (wide(c) != uint64_t{{0}}) ? a : b; }}

"""
"""What the C++ of elements needs."""

_SIMPLE = {"&": "&", "|": "|", "^": "^"}
_CUT = {"+": "+", "-": "-", "*": "*"}
_COMPARED = {"==", "!=", "u<", "u>", "u<=", "u>=", "s<", "s>", "s<=", "s>="}


class Unsuitable(Exception):
    """There is no C++ for a component, or for an array of them; says what it has."""


@dataclasses.dataclass(frozen=True)
class Variable:
    """A C++ variable: its text, its width, and whether it is the same for all elements."""

    text: str
    width: int
    uniform: bool


def _number(value: int, is_wide: bool) -> str:
    return f"uint64_t{{{value:#x}u}}" if is_wide else f"{value:#x}u"


def _ones(width: int, is_wide: bool | None = None) -> str:
    return _number((1 << width) - 1, width > 32 if is_wide is None else is_wide)


def declared(name: str, width: int) -> str:
    """Return the declaration of a number of ``width`` bits."""
    return f"uint{64 if width > 32 else 32}_t {name}"


class Expressions:
    """C++ expressions of nets.

    Parameters
    ----------
    variable : callable
        Returns the variable that has a net, and its place there.
    """

    def __init__(self, variable: Callable[[_nir.Net], tuple[Variable, int]]) -> None:
        self._variable = variable

    def __call__(self, nets: Sequence[_nir.Net]) -> tuple[str, bool]:
        """Return the number that some nets are, and whether it is the same for all elements."""
        if len(nets) > 64:
            raise Unsuitable(f"a value of {len(nets)} bits")
        is_wide = len(nets) > 32
        constant, at, uniform = 0, 0, True
        parts: list[str] = []
        while at < len(nets):
            if nets[at].is_const:
                constant |= nets[at].const << at
                at += 1
                continue
            variable, low = self._variable(nets[at])
            count = 1
            while at + count < len(nets) and self._is(nets[at + count], variable, low + count):
                count += 1
            copies = 0
            top = nets[at + count - 1]
            while at + count + copies < len(nets) and nets[at + count + copies] == top:
                copies += 1
            parts.append(_part(variable, low, count, copies, at, is_wide))
            uniform &= variable.uniform
            at += count + copies
        if constant or not parts:
            parts.append(_number(constant, is_wide))
        return (f"({' | '.join(parts)})" if len(parts) > 1 else parts[0]), uniform

    def _is(self, net: _nir.Net, variable: Variable, place: int) -> bool:
        return not net.is_const and self._variable(net) == (variable, place)


def _part(variable: Variable, low: int, count: int, copies: int, at: int, is_wide: bool) -> str:
    """Return ``count`` bits of a variable from ``low`` on, then copies of the last, at ``at``."""
    text = variable.text
    if low:
        text = f"({text} >> {low})"
    if low + count < variable.width:
        text = f"({text} & {_ones(count, variable.width > 32)})"
    if (variable.width > 32) != is_wide:
        text = f"{'wide' if is_wide else 'narrow'}({text})"
    if copies:
        sign = _number(1 << count - 1, is_wide)
        text = f"((({text} ^ {sign}) - {sign}) & {_ones(count + copies, is_wide)})"
    return f"({text} << {at})" if at else text


class Element:
    """The C++ of one component.

    Parameters
    ----------
    netlist : Netlist
        Of the component; its clock is ``clk``.
    uniform : iterable of str
        Inputs that are the same for all elements.

    Members
    -------
    inputs, outputs : dict
        Widths of the ports, by name, without the clock.
    uniform : list of str
        Those of ``uniform`` that the component has.

    Raises
    ------
    Unsuitable
        If the component has something that no C++ is made of: another clock, outputs that do not
        come from registers, values of more than 64 bits.
    """

    def __init__(self, netlist: _nir.Netlist, uniform: Iterable[str]) -> None:
        self._cells = netlist.cells
        self._top = netlist.top
        ports = netlist.top.ports_i
        if "clk" not in ports:
            raise Unsuitable("no clock")
        self._clock = _nir.Net.from_cell(0, ports["clk"][0])
        self.inputs = {port: width for port, (_, width) in ports.items() if port != "clk"}
        self.outputs = {port: len(nets) for port, nets in netlist.top.ports_o.items()}
        named = set(uniform)
        self.uniform = [port for port in self.inputs if port in named]
        self._port = {
            start + bit: (Variable(f"i_{port}", width, port in named), bit)
            for port, (start, width) in ports.items()
            for bit in range(width)
        }
        self._variables: dict[int, Variable] = {}
        self._open: set[int] = set()  # cells that are being written
        self._following: dict[int, Variable] = {}
        self._lines: list[str] = []
        self._ends: list[str] = []
        self._text = Expressions(self._find)
        self._memories = {
            index: cell for index, cell in enumerate(self._cells) if isinstance(cell, _nir.Memory)
        }
        self._check()
        self._registers = {index: self._variables[index].width for index in sorted(self._variables)}
        self._advance()

    def _check(self) -> None:
        """Refuse what has no C++, and name the registers."""
        for index, cell in enumerate(self._cells):
            match cell:
                case _nir.FlipFlop():
                    if not cell.arst.is_const or cell.init:
                        raise Unsuitable(
                            "a register with an asynchronous reset, or that starts at 1"
                        )
                    width = len(cell.data)
                case _nir.SyncReadPort():
                    if cell.transparent_for:
                        raise Unsuitable("a transparent port of a memory")
                    width = cell.width
                case _nir.SyncWritePort():
                    if len(set(cell.en)) != 1:
                        raise Unsuitable("a memory of which parts of words are written")
                    width = 0
                case _nir.Memory():
                    if cell.width > 32 or any(cell.init):
                        raise Unsuitable("a memory of wide words, or with contents")
                    continue
                case _:
                    continue
            if (cell.clk, cell.clk_edge) != (self._clock, "pos"):
                raise Unsuitable("another clock")
            if width > 64:
                raise Unsuitable(f"a register of {width} bits")
            if width:
                self._variables[index] = Variable(f"r{index}", width, False)

    def _find(self, net: _nir.Net) -> tuple[Variable, int]:
        if net.cell == 0:
            return self._port[net.bit]
        if net.cell in self._open:
            raise Unsuitable("bits that depend on others of the same value")
        if net.cell not in self._variables:
            self._open.add(net.cell)
            self._write(net.cell)
            self._open.remove(net.cell)
        return self._variables[net.cell], net.bit

    def _define(self, index: int, width: int, text: str, uniform: bool) -> None:
        """Write a cell's value, or the next one of it, to a variable of its own."""
        if width > 64:
            raise Unsuitable(f"a value of {width} bits")
        kind = "64" if width > 32 else "32"
        name = f"v{len(self._lines)}"
        self._lines.append(f"const {f'uint{kind}_t' if uniform else f'V{kind}'} {name} = {text};")
        self._variables[index] = Variable(name, width, uniform)

    def _write(self, index: int) -> None:
        """Write a cell, behind those that it reads."""
        cell = self._cells[index]
        match cell:
            case _nir.Operator():
                self._operator(index, cell)
            case _nir.Part():
                self._part(index, cell)
            case _nir.Matches():
                self._matches(index, cell)
            case _nir.PriorityMatch():
                self._priority(index, cell)
            case _nir.AssignmentList():
                self._assignments(index, cell)
            case _:
                raise Unsuitable(f"a cell of the kind {type(cell).__name__}")

    def _operator(self, index: int, cell: _nir.Operator) -> None:
        operator, width = cell.operator, cell.width
        operands = [self._text(value) for value in cell.inputs]
        texts = [text for text, _ in operands]
        uniform = all(same for _, same in operands)
        size = len(cell.inputs[0])
        is_wide = size > 32
        if operator == "m":
            text, uniform = _choice(operands, width > 32)
        elif operator in _SIMPLE:
            text = f"{texts[0]} {operator} {texts[1]}"
        elif operator == "~":
            text = f"{texts[0]} ^ {_ones(width)}"
        elif operator in _CUT:
            first = texts if len(texts) == 2 else [_number(0, is_wide), *texts]
            text = f"({first[0]} {operator} {first[1]}) & {_ones(width)}"
        elif operator in ("r|", "b"):
            text = _test(f"{texts[0]} != {_number(0, is_wide)}", uniform, is_wide)
        elif operator == "r&":
            text = _test(f"{texts[0]} == {_ones(size, is_wide)}", uniform, is_wide)
        elif operator in _COMPARED:
            if operator[0] == "s":
                # With the sign turned round, signed numbers are in the order of unsigned ones.
                texts = [f"({text} ^ {_number(1 << size - 1, is_wide)})" for text in texts]
            text = _test(f"{texts[0]} {operator.lstrip('us')} {texts[1]}", uniform, is_wide)
        elif operator in ("<<", "u>>", "s>>"):
            amount = len(cell.inputs[1])
            value = operands[0]
            if operator == "s>>":
                # The complement of a negative number is shifted, and turned back.
                turn = f"({_number(0, is_wide)} - ({texts[0]} >> {width - 1}))"
                value = f"(({texts[0]} ^ {turn}) & {_ones(width)})", value[1]
            text = _shift(value, operator[-2:], operands[1], amount, is_wide)
            if operator == "s>>":
                text = f"({text}) ^ {turn}"
            text = f"({text}) & {_ones(width)}"
        else:
            raise Unsuitable(f"the operator {operator}")
        self._define(index, width, text, uniform)

    def _part(self, index: int, cell: _nir.Part) -> None:
        is_wide = len(cell.value) > 32
        last = ((1 << len(cell.offset)) - 1) * cell.stride
        if last + cell.width > len(cell.value) or cell.width > 32:
            raise Unsuitable("a part that may lie beyond its value")
        value, (offset, same) = self._text(cell.value), self._text(cell.offset)
        places = (f"({offset} * {cell.stride}u)", same)
        text = _shift(value, ">>", places, last.bit_length(), is_wide)
        text = f"({text}) & {_ones(cell.width, is_wide)}"
        if is_wide:
            text = f"narrow({text})"
        self._define(index, cell.width, text, value[1] and same)

    def _matches(self, index: int, cell: _nir.Matches) -> None:
        value, uniform = self._text(cell.value)
        is_wide = len(cell.value) > 32
        tests = []
        for pattern in cell.patterns:
            care = int("0" + "".join("01"[bit != "-"] for bit in pattern), 2)
            wanted = int("0" + "".join("01"[bit == "1"] for bit in pattern), 2)
            seen = f"({value} & {_number(care, is_wide)})"
            tests.append(_test(f"{seen} == {_number(wanted, is_wide)}", uniform, is_wide))
        self._define(index, 1, " | ".join(tests) or "0u", uniform or not tests)

    def _priority(self, index: int, cell: _nir.PriorityMatch) -> None:
        if len(cell.inputs) > 32:
            raise Unsuitable("a choice among more than 32")
        enable, uniform = self._text([cell.en])
        parts = []
        earlier = ""
        for place, net in enumerate(cell.inputs):
            text, same = self._text([net])
            uniform &= same
            parts.append(f"(({enable} & {text}{earlier}) << {place})")
            earlier += f" & ({text} ^ 1u)"
        self._define(index, len(cell.inputs), " | ".join(parts) or "0u", uniform)

    def _assignments(self, index: int, cell: _nir.AssignmentList) -> None:
        width = len(cell.default)
        nets = list(cell.default)
        now: Variable | None = None  # once it depends on a condition
        for step in cell.assignments:
            value = list(step.value[: width - step.start])
            stop = step.start + len(value)
            if now is None:
                if step.cond.is_const:
                    nets[step.start : stop] = value if step.cond.const else nets[step.start : stop]
                    continue
                text, uniform = self._text(nets)
                now = Variable(text, width, uniform)
            zero = [_nir.Net.from_const(0)]
            placed, same = self._text([*(zero * step.start), *value, *(zero * (width - stop))])
            if len(value) < width:
                others = (1 << width) - 1 ^ ((1 << len(value)) - 1) << step.start
                placed = f"(({now.text} & {_number(others, width > 32)}) | {placed})"
                same &= now.uniform
            choice = [self._text([step.cond]), (placed, same), (now.text, now.uniform)]
            text, uniform = _choice(choice, width > 32)
            self._define(index, width, text, uniform)
            now = self._variables[index]
        if now is None:
            self._define(index, width, *self._text(nets))

    def _advance(self) -> None:
        """Write the registers' next values, the accesses to memories, and what leaves."""
        reads, writes = [], []
        for index, cell in enumerate(self._cells):
            match cell:
                case _nir.FlipFlop():
                    kind = 64 if len(cell.data) > 32 else 32
                    text, _ = self._text(cell.data)
                    self._lines.append(f"const V{kind} n{index} = all{kind}({text});")
                    self._ends.append(f"store(s.r{index} + at, n{index});")
                    self._following[index] = Variable(f"n{index}", len(cell.data), False)
                case _nir.SyncReadPort():
                    to, word = f"s.r{index}[at + j]", f"[a{index}[j]]"
                    reads.append(
                        self._access(index, cell, f"{to} = s.m{cell.memory}[at + j]{word}")
                    )
                    text = f"load(s.r{index} + at)"
                    self._following[index] = Variable(text, cell.width, False)
                case _nir.SyncWritePort():
                    word = f"s.m{cell.memory}[at + j][a{index}[j]]"
                    self._spread(f"d{index}", cell.data)
                    writes.append(self._access(index, cell, f"{word} = d{index}[j]"))
        # Reads see what was there before the cycle's writes.
        self._ends += [*reads, *writes]
        after = Expressions(self._follow)
        for port, nets in self._top.ports_o.items():
            kind = 64 if len(nets) > 32 else 32
            self._ends.append(f"store(s.o_{port} + at, all{kind}({after(nets)[0]}));")

    def _access(self, index: int, cell: _nir.SyncReadPort | _nir.SyncWritePort, act: str) -> str:
        enable = cell.en if isinstance(cell.en, _nir.Net) else cell.en[0]
        self._spread(f"a{index}", cell.addr)
        self._spread(f"e{index}", [enable])
        if 1 << len(cell.addr) > self._memories[cell.memory].depth:
            raise Unsuitable("a memory with addresses beyond its end")
        return f"for (int j = 0; j < {CHUNK}; ++j) if (e{index}[j]) {act};"

    def _spread(self, name: str, nets: Sequence[_nir.Net]) -> None:
        """Write a value to an array, for each element by itself."""
        text, _ = self._text(nets)
        self._lines += [f"uint32_t {name}[{CHUNK}];", f"store({name}, all32({text}));"]

    def _follow(self, net: _nir.Net) -> tuple[Variable, int]:
        if net.cell not in self._following:
            raise Unsuitable("an output that does not come from a register")
        return self._following[net.cell], net.bit

    def members(self, count: int) -> Iterator[str]:
        """Yield members of a structure: inputs, outputs and state of ``count`` elements."""
        own = {f"i_{port}": w for port, w in self.inputs.items() if port not in self.uniform}
        own |= {f"o_{port}": width for port, width in self.outputs.items()}
        own |= {f"r{index}": width for index, width in self._registers.items()}
        for name, width in own.items():
            yield f"alignas(64) {declared(f'{name}[{count}]', width)};"
        for index, memory in self._memories.items():
            kind = 16 if memory.width <= 16 else 32
            yield f"uint{kind}_t m{index}[{count}][{memory.depth}];"

    def step(self) -> Iterator[str]:
        """Yield what a vector of elements, from ``at`` on, does in a cycle.

        It reads ``s.i_PORT``, and ``i_PORT`` of the uniform inputs, and writes ``s.o_PORT``.
        """
        own = {f"i_{port}": w for port, w in self.inputs.items() if port not in self.uniform}
        own |= {f"r{index}": width for index, width in self._registers.items()}
        for name, width in own.items():
            yield f"const V{64 if width > 32 else 32} {name} = load(s.{name} + at);"
        yield from self._lines
        yield from self._ends


def _test(text: str, uniform: bool, is_wide: bool) -> str:
    """Return a comparison as a number of one bit."""
    return f"bit{'' if uniform else 64 if is_wide else 32}({text})"


def _choice(operands: Sequence[tuple[str, bool]], is_wide: bool) -> tuple[str, bool]:
    """Return ``condition ? a : b``, and whether it is uniform."""
    (condition, fixed), (a, same_a), (b, same_b) = operands
    if fixed and same_a and same_b:
        return f"{condition} ? {a} : {b}", True
    a, b = (f"all{64 if is_wide else 32}({text})" for text in (a, b))
    return (f"{condition} ? {a} : {b}" if fixed else f"choose({condition}, {a}, {b})"), False


def _shift(
    value: tuple[str, bool], sign: str, amount: tuple[str, bool], bits: int, is_wide: bool
) -> str:
    """Return a value shifted by an amount of so many bits."""
    size = 64 if is_wide else 32
    if 1 << bits > size:
        raise Unsuitable("a shift that may be longer than a word")
    text, by = value[0], amount[0]
    if value[1] and not amount[1]:
        text = f"all{size}({text})"
    return f"{text} {sign} {f'wide({by})' if is_wide else by}"
