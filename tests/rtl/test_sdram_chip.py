"""The model of an SDRAM that boards are simulated with."""

from deepseek.sim.runner import run_bench
from deepseek.sim.sdram import sdram_faults, sdram_verilog

# Small, and with a clock and times for which each rule can be broken alone.
PARAMETERS = {
    "CLOCK_PS": 7500,
    "ROW_BITS": 2,
    "COLUMN_BITS": 5,
    "HALVES": 0,
    "RC_PS": 82500,
    "RAS_MAX_NS": 3000,
    "POWER_UP_NS": 750,
    "REFRESHES": 4,
    "REFRESH_NS": 15000,
    "REFRESH_GAP_NS": 6000,
}

LIMITS = {
    "rcd": 3,
    "rp": 3,
    "ras": 6,
    "rc": 11,
    "rfc": 10,
    "rrd": 2,
    "wr": 2,
    "mrd": 2,
    "burst": 4,
    "turn": 8,
    "ras_max": 400,
    "gap": 800,
    "refreshes": 4,
    "window": 2000,
    "power_up": 100,
}
"""The rules of the datasheets in cycles of 7.5 ns."""

TOP = """
module Chip(
    input clk, input restart, input cke, input [2:0] command, input [1:0] bank,
    input [12:0] address, input [1:0] dqm, input [15:0] dq_i, input dq_driven,
    output [15:0] dq_o, output dq_oe, output [7:0] fault
);
    sdram #(PARAMETERS) chip(
        .clk(clk), .restart(restart), .cke(cke), .cs_n(1'b0),
        .ras_n(command[2]), .cas_n(command[1]), .we_n(command[0]),
        .bank(bank), .address(address), .dqm(dqm), .dq_i(dq_i), .dq_driven(dq_driven),
        .dq_o(dq_o), .dq_oe(dq_oe), .fault(fault)
    );
endmodule
"""


def run(parameters: dict[str, int], testcase: list[str]) -> None:
    text = ", ".join(f".{name}({value})" for name, value in parameters.items())
    run_bench(
        TOP.replace("PARAMETERS", text) + sdram_verilog(),
        "deepseek.sim.benches.sdram_chip",
        name="Chip",
        env={"LIMITS": ",".join(f"{name}={value}" for name, value in LIMITS.items())},
        testcase=testcase,
    )


def test_rules() -> None:
    cases = ["power_up", "data", "read_masks", "gaps", "longest", "order", "others"]
    run({**PARAMETERS, "CK_CAS2_PS": 7500}, cases)


def test_clock() -> None:
    run(PARAMETERS, ["clock"])


def test_codes() -> None:
    """Each fault has a number of its own, and the names can be read from the model."""
    faults = sdram_faults()
    assert sorted(faults.values()) == list(range(1, len(faults) + 1))
    assert {"RCD", "REFRESH_LATE", "UNSUPPORTED"} <= set(faults)
