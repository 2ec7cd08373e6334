"""RTLIL as text, taken apart by hierarchy.

Synthesis of the whole card at once takes yosys many minutes. Block by block it takes one, two run
at a time, and a block whose text is the same is not synthesised again. So the text of a block must
not depend on what is around it: numbers that Amaranth counts over the whole design are counted
anew in each module, and the path to the block is cut off.
"""

import dataclasses
import functools
import re
from collections.abc import Mapping

__all__ = ["BLOCK", "Block", "Design", "split"]

BLOCK = "block"
"""What a block's top module is called in its own text."""

SPLIT_BYTES = 2_500_000
"""A block with more text than this gives its submodules away ..."""

PART_BYTES = 25_000
"""... that have more than this."""

MODULE = re.compile(r"(?:^attribute [^\n]*\n)*^module (\\\S+)\n.*?^end\n", re.M | re.S)
CELL = re.compile(r"^  cell (\\\S+) (\S+)\n(.*?)^  end\n", re.M | re.S)
PORT = re.compile(r"^  wire (?:[^\n]* )?(?:input|output|inout) +\d+ (?:[^\n]* )?(\\\S+)\n", re.M)
NUMBERED = re.compile(r"\\port\$\d+\$\d+(?!\S)")
CONNECT = re.compile(r"^    connect (\\\S+)", re.M)


@dataclasses.dataclass
class Module:
    """One module.

    Parameters
    ----------
    name : str
        With its leading backslash, as all names here.
    text : str
    """

    name: str
    text: str

    @functools.cached_property
    def ports(self) -> list[str]:
        """Names of the ports, in order."""
        return PORT.findall(self.text)

    @functools.cached_property
    def cells(self) -> list[tuple[str, str]]:
        """Types and names of the cells."""
        return [match.groups()[:2] for match in CELL.finditer(self.text)]  # type: ignore[misc]

    @property
    def stub(self) -> str:
        """The module as a black box."""
        ports = "".join(match.group(0) for match in PORT.finditer(self.text))
        return f"attribute \\blackbox 1\nmodule {self.name}\n{ports}end\n"


@dataclasses.dataclass
class Block:
    """Modules that are synthesised together.

    Parameters
    ----------
    name : str
        Name of its top module, without backslash.
    path : str
        Where it is in the design; of a repeated component its name.
    text : str
        RTLIL in which the top is called `BLOCK`, with what is outside as black boxes. Equal
        for blocks that are equal.
    inner : list[tuple[str, str]]
        Blocks inside: name, and the name of the instance from this block's top down, with dots.
    outer : dict[str, str]
        What the blocks inside are called in the text (type of their cells): their names.
    """

    name: str
    path: str
    text: str
    inner: list[tuple[str, str]]
    outer: dict[str, str]


@dataclasses.dataclass
class Design:
    """A design in blocks.

    Parameters
    ----------
    top : str
        Name of the top's block.
    blocks : dict[str, Block]
        By name.
    """

    top: str
    blocks: dict[str, Block]

    def instances(self) -> dict[str, str]:
        """Return the block of every instance, by its path from the top (the top's is empty)."""
        found = {}

        def visit(name: str, path: str) -> None:
            found[path] = name
            for inside, instance in self.blocks[name].inner:
                visit(inside, f"{path}.{instance}" if path else instance)

        visit(self.top, "")
        return found


def _renumber(modules: dict[str, Module]) -> dict[str, Module]:
    """Name the ports that Amaranth numbers over the whole design by their place in the module."""
    names = {
        module.name: {
            port: f"\\port$${place}"
            for place, port in enumerate(module.ports)
            if NUMBERED.fullmatch(port)
        }
        for module in modules.values()
    }

    def rename(module: Module) -> Module:
        own = names[module.name]

        def named(match: re.Match[str]) -> str:
            return own.get(match.group(0), match.group(0))

        def line(text: str) -> str:
            if text.startswith("    connect "):  # the port of a cell is not the module's to name
                start = text.index(" ", len("    connect "))
                return text[:start] + NUMBERED.sub(named, text[start:])
            return NUMBERED.sub(named, text)

        def cell(match: re.Match[str]) -> str:
            inside = names.get(match.group(1), {})
            body = CONNECT.sub(
                lambda port: f"    connect {inside.get(port.group(1), port.group(1))}",
                match.group(3),
            )
            return f"  cell {match.group(1)} {match.group(2)}\n{body}  end\n"

        text = "".join(map(line, module.text.splitlines(keepends=True))) if own else module.text
        return Module(module.name, CELL.sub(cell, text))

    return {name: rename(module) for name, module in modules.items()}


def split(
    texts: Mapping[str, str], *, split_bytes: int = SPLIT_BYTES, part_bytes: int = PART_BYTES
) -> Design:
    """Take a design apart.

    Parameters
    ----------
    texts : dict[str, str]
        RTLIL by name of its top module: first the design, then the components that are repeated.
    split_bytes, part_bytes : int
        A block with more text than the first gives away its submodules that have more than the
        second.
    """
    modules: dict[str, Module] = {}
    for text in texts.values():
        for match in MODULE.finditer(text):
            modules[match.group(1)] = Module(match.group(1), match.group(0))
    modules = _renumber(modules)
    roots = {f"\\{name}" for name in texts}
    top = f"\\{next(iter(texts))}"

    def inside(name: str) -> list[str]:
        """The module and those in it, down to the blocks inside."""
        found = [name]
        for kind, _ in modules[name].cells:
            if kind in modules and kind not in roots:
                found += inside(kind)
        return found

    def part(name: str) -> None:
        if sum(len(modules[one].text) for one in inside(name)) <= split_bytes:
            return
        given = [
            kind
            for kind, _ in modules[name].cells
            if kind in modules
            and kind not in roots
            and sum(len(modules[one].text) for one in inside(kind)) > part_bytes
        ]
        if not given:
            # One module inside has it all, maybe.
            for kind, _ in modules[name].cells:
                if kind in modules and kind not in roots:
                    part(kind)
            return
        roots.update(given)
        for kind in given:
            part(kind)

    for root in sorted(roots):
        part(root)

    return Design(
        top[1:], {root[1:]: _block(root, inside(root), modules, roots) for root in sorted(roots)}
    )


def _block(root: str, members: list[str], modules: dict[str, Module], roots: set[str]) -> Block:
    within = re.compile(rf"{re.escape(root)}(?=[.\s])")

    def local(text: str) -> str:
        return within.sub(lambda _: f"\\{BLOCK}", text)

    paths = {root: ""}
    inner, outer, texts = [], {}, []
    for name in members:
        module = modules[name]
        texts.append(local(module.text))
        for kind, instance in module.cells:
            path = f"{paths[name]}.{instance[1:]}".lstrip(".")
            if kind in members:
                paths[kind] = path
            elif kind in roots:
                inner.append((kind[1:], path))
                outer[local(f"{kind} ")[1:-1]] = kind[1:]
    texts += [local(modules[f"\\{name}"].stub) for name in dict.fromkeys(outer.values())]
    return Block(root[1:], root[1:], "".join(texts), inner, outer)
