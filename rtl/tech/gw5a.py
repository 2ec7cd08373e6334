"""Multiplier and block RAM of Gowin's GW5A."""

from amaranth.hdl import Cat, ClockSignal, Const, Instance, Signal, Value

__all__ = ["A_BITS", "B_BITS", "UNUSED", "block_ram", "parameters"]

A_BITS, B_BITS = 27, 18

UNUSED = {
    **{"C": 48, "CASI": 48, "D": 26, "SIA": 27, "ADDSUB": 2},
    **dict.fromkeys(("ACCSEL", "PSEL", "ASEL", "PADDSUB", "CSEL", "CASISEL"), 1),
}
"""Inputs that a plain multiplier leaves at 0, and their widths."""

_REGISTERS = (
    *("AREG", "BREG", "DREG", "C_IREG", "PSEL_IREG", "PADDSUB_IREG"),
    *("ADDSUB0_IREG", "ADDSUB1_IREG", "CSEL_IREG", "CASISEL_IREG", "ACCSEL_IREG"),
    *("PREG", "ADDSUB0_PREG", "ADDSUB1_PREG", "CSEL_PREG", "CASISEL_PREG", "ACCSEL_PREG"),
    *("C_PREG", "OREG"),
)
_CHOICES = (
    *("P_SEL", "P_ADDSUB", "A_SEL", "ADD_SUB_0", "ADD_SUB_1", "C_SEL", "CASI_SEL", "ACC_SEL"),
)


def parameters(*registers: str) -> dict[str, object]:
    """Return all parameters of a MULTALU27X18 that multiplies, A times B, both signed.

    Parameters
    ----------
    registers : str
        Its registers that are used, on CLK[0] and CE[0]: ``AREG``, ``BREG``, ``PREG``. Of
        ``OREG`` the packer (apycula 0.32) leaves out the configuration on GW5AST-138C.
    """
    found: dict[str, object] = {}
    for name in _REGISTERS:
        found[f"{name}_CLK"] = "CLK0" if name in registers else "BYPASS"
        found[f"{name}_CE"] = "CE0"
        found[f"{name}_RESET"] = "RESET0"
    for name in _CHOICES:
        found[f"DYN_{name}"] = "FALSE"
        found[name] = Const(0, 1)  # C_SEL too, which is 1 by default: nothing is added
    found |= {"FB_PREG_EN": "FALSE", "SOA_PREG_EN": "FALSE", "MULT12X12_EN": "FALSE"}
    return found | {"MULT_RESET_MODE": "SYNC", "PRE_LOAD": Const(0, 48)}


def block_ram(
    *,
    write: Value,
    write_address: Value,
    write_mask: Value,
    write_data: Value,
    read: Value,
    read_address: Value,
    data: Signal,
) -> Instance:
    """Return a block RAM of 1,024 words of two bytes of 9 bits, in the domain sync.

    Its output register is not used: what has one puts it outside.

    Parameters
    ----------
    write_mask : Value
        The two bytes that are written.
    write_data : Value
        18 bits.
    data : Signal
        18 bits; gets what was read, one cycle after it.
    """
    at, place = (
        Cat(low, address, Const(0, 10 - len(address)))
        for low, address in (
            # The lowest bits of an address are enables of bytes.
            (Cat(write_mask, Const(0, 2)), write_address),
            (Const(0, 4), read_address),
        )
    )
    return Instance(
        "SDPX9B",
        p_READ_MODE=Const(0, 1),
        p_BIT_WIDTH_0=18,
        p_BIT_WIDTH_1=18,
        p_BLK_SEL_0=Const(0, 3),
        p_BLK_SEL_1=Const(0, 3),
        p_RESET_MODE="SYNC",
        **{f"p_INIT_RAM_{number:02X}": Const(0, 288) for number in range(64)},
        i_CLKA=ClockSignal(),
        i_CEA=write,
        i_ADA=at,
        i_DI=Cat(write_data, Const(0, 18)),
        i_CLKB=ClockSignal(),
        i_CEB=read,
        i_OCE=Const(1, 1),
        i_RESET=Const(0, 1),
        i_ADB=place,
        i_BLKSELA=Const(0, 3),
        i_BLKSELB=Const(0, 3),
        o_DO=Cat(data, Signal(18, name="unused")),
    )
