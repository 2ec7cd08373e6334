"""NumPy models of the card's arithmetic, written from the specification.

Arrays in, arrays out; no Amaranth and nothing of ``rtl``. Formats and functions are named by
lower-case strings: ``"int8"``, ``"fp16"``, ``"int32"``, ``"fp32"``; ``"none"``, ``"relu"``.
"""
