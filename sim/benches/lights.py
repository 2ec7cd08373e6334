"""Bench of `Lasting`."""

import cocotb

from .lib import rng, sample, start, tick


@cocotb.test()
async def lights_last(dut):
    """A light is on for at least a tick after its event, and off after two without one."""
    r = rng()
    dut.tick.value = dut.events.value = 0
    await start(dut)
    ticks = 0
    last: list[int | None] = [None, None]  # ticks before the newest event
    on = 0
    for cycle in range(4000):
        now = int(cycle % 50 == 0)
        event = [int(r.random() < p + now / 5) for p in (0.002, 0.02)]
        dut.tick.value = now
        dut.events.value = event[0] | event[1] << 1
        await sample(dut)
        lights = int(dut.lights.value)
        for light, then in enumerate(last):
            lit = lights >> light & 1
            if then is None or ticks - then > 2:
                assert not lit
            elif ticks - then < 2:
                assert lit
            on += lit
        await tick(dut)
        for light in range(2):
            if event[light]:
                last[light] = ticks
        ticks += now
    assert 0 < on < 8000
