// Model of the ECP5's 18 by 18 multiplier, from Lattice's "ECP5 and ECP5-5G sysDSP Usage Guide".
//
// Modelled: both factors and the product in two's complement or unsigned, and registers on CLK0,
// CE0 and RST0 (synchronous) for the inputs, in the middle and at the output. Anything else stops
// the simulation: other clocks, shifted sources, the C input, bypasses.
module MULT18X18D #(
    parameter REG_INPUTA_CLK = "NONE", REG_INPUTA_CE = "CE0", REG_INPUTA_RST = "RST0",
    parameter REG_INPUTB_CLK = "NONE", REG_INPUTB_CE = "CE0", REG_INPUTB_RST = "RST0",
    parameter REG_INPUTC_CLK = "NONE", REG_INPUTC_CE = "CE0", REG_INPUTC_RST = "RST0",
    parameter REG_PIPELINE_CLK = "NONE", REG_PIPELINE_CE = "CE0", REG_PIPELINE_RST = "RST0",
    parameter REG_OUTPUT_CLK = "NONE", REG_OUTPUT_CE = "CE0", REG_OUTPUT_RST = "RST0",
    parameter CLK0_DIV = "ENABLED", CLK1_DIV = "ENABLED", CLK2_DIV = "ENABLED",
    parameter CLK3_DIV = "ENABLED", HIGHSPEED_CLK = "NONE", GSR = "ENABLED",
    parameter CAS_MATCH_REG = "FALSE", SOURCEB_MODE = "B_SHIFT", MULT_BYPASS = "DISABLED",
    parameter RESETMODE = "SYNC"
) (
    input A0, A1, A2, A3, A4, A5, A6, A7, A8, A9, A10, A11, A12, A13, A14, A15, A16, A17,
    input B0, B1, B2, B3, B4, B5, B6, B7, B8, B9, B10, B11, B12, B13, B14, B15, B16, B17,
    input C0, C1, C2, C3, C4, C5, C6, C7, C8, C9, C10, C11, C12, C13, C14, C15, C16, C17,
    input SIGNEDA, SIGNEDB, SOURCEA, SOURCEB,
    input CLK0, CLK1, CLK2, CLK3, CE0, CE1, CE2, CE3, RST0, RST1, RST2, RST3,
    output P0, P1, P2, P3, P4, P5, P6, P7, P8, P9, P10, P11, P12, P13, P14, P15, P16, P17,
    output P18, P19, P20, P21, P22, P23, P24, P25, P26, P27, P28, P29, P30, P31, P32, P33, P34, P35,
    output SIGNEDP
);
    localparam IN_A = REG_INPUTA_CLK != "NONE", IN_B = REG_INPUTB_CLK != "NONE";
    localparam MIDDLE = REG_PIPELINE_CLK != "NONE", OUT = REG_OUTPUT_CLK != "NONE";

    initial begin
        if ((IN_A && (REG_INPUTA_CLK != "CLK0" || REG_INPUTA_CE != "CE0"
                      || REG_INPUTA_RST != "RST0"))
            || (IN_B && (REG_INPUTB_CLK != "CLK0" || REG_INPUTB_CE != "CE0"
                         || REG_INPUTB_RST != "RST0"))
            || (MIDDLE && (REG_PIPELINE_CLK != "CLK0" || REG_PIPELINE_CE != "CE0"
                           || REG_PIPELINE_RST != "RST0"))
            || (OUT && (REG_OUTPUT_CLK != "CLK0" || REG_OUTPUT_CE != "CE0"
                        || REG_OUTPUT_RST != "RST0"))) begin
            $display("MULT18X18D %m: registers must use CLK0, CE0 and RST0");
            $stop;
        end
        if (REG_INPUTC_CLK != "NONE" || CLK0_DIV != "ENABLED" || HIGHSPEED_CLK != "NONE"
            || CAS_MATCH_REG != "FALSE" || MULT_BYPASS != "DISABLED" || RESETMODE != "SYNC") begin
            $display("MULT18X18D %m: a mode without a model");
            $stop;
        end
    end

    always @(posedge CLK0)
        if (SOURCEA || SOURCEB) begin
            $display("MULT18X18D %m: shifted sources have no model");
            $stop;
        end

    wire [17:0] a_in = {A17, A16, A15, A14, A13, A12, A11, A10, A9, A8, A7, A6, A5, A4, A3, A2, A1, A0};
    wire [17:0] b_in = {B17, B16, B15, B14, B13, B12, B11, B10, B9, B8, B7, B6, B5, B4, B3, B2, B1, B0};

    // The sign selects go with their factors.
    reg [18:0] a_reg = 0, b_reg = 0;
    wire [18:0] a = IN_A ? a_reg : {SIGNEDA & a_in[17], a_in};
    wire [18:0] b = IN_B ? b_reg : {SIGNEDB & b_in[17], b_in};
    wire signed [37:0] product = $signed(a) * $signed(b);

    reg [35:0] middle_reg = 0, out_reg = 0;
    wire [35:0] middle = MIDDLE ? middle_reg : product[35:0];
    wire [35:0] p = OUT ? out_reg : middle;

    always @(posedge CLK0)
        if (RST0) begin
            a_reg <= 0;
            b_reg <= 0;
            middle_reg <= 0;
            out_reg <= 0;
        end else if (CE0) begin
            a_reg <= {SIGNEDA & a_in[17], a_in};
            b_reg <= {SIGNEDB & b_in[17], b_in};
            middle_reg <= product[35:0];
            out_reg <= middle;
        end

    assign {P35, P34, P33, P32, P31, P30, P29, P28, P27, P26, P25, P24, P23, P22, P21, P20, P19, P18,
            P17, P16, P15, P14, P13, P12, P11, P10, P9, P8, P7, P6, P5, P4, P3, P2, P1, P0} = p;
    assign SIGNEDP = SIGNEDA | SIGNEDB;
endmodule
