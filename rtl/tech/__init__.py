"""Cells with a generic form and one for a device family.

A build says which family it is for by the ``technology`` of the platform that it elaborates with;
without a platform (simulation) every cell takes its generic form. Tests prove each pair equal.
"""

__all__ = ["ECP5", "GENERIC", "GW5A", "KEEP", "technology"]

GENERIC = "generic"
ECP5 = "ecp5"
GW5A = "gw5a"

KEEP = {"keep": 1}
"""Attributes of a signal that synthesis keeps as a net, so that what is late mostly stays behind
what is early. It may still build what reads the signal from what the signal is made of; a
`deepseek.rtl.tech.gate.Gate` it leaves alone. Registers that are equal become one all the same.
"""


def technology(platform: object) -> str:
    """Return the family whose cells a component has to use: `GENERIC`, `ECP5`, ..."""
    return getattr(platform, "technology", GENERIC)
