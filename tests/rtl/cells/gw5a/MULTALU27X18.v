// The multiplier of Gowin's GW5A as far as `rtl.tech` uses it: A times B, both signed, with
// registers at the factors, at the product and at the output.
module MULTALU27X18 #(
    parameter AREG_CLK = "BYPASS", BREG_CLK = "BYPASS", PREG_CLK = "BYPASS", OREG_CLK = "BYPASS",
    parameter AREG_CE = "CE0", BREG_CE = "CE0", PREG_CE = "CE0", OREG_CE = "CE0",
    parameter AREG_RESET = "RESET0", BREG_RESET = "RESET0",
    parameter PREG_RESET = "RESET0", OREG_RESET = "RESET0",
    parameter DREG_CLK = "BYPASS", DREG_CE = "CE0", DREG_RESET = "RESET0",
    parameter C_IREG_CLK = "BYPASS", C_IREG_CE = "CE0", C_IREG_RESET = "RESET0",
    parameter C_PREG_CLK = "BYPASS", C_PREG_CE = "CE0", C_PREG_RESET = "RESET0",
    parameter PSEL_IREG_CLK = "BYPASS", PSEL_IREG_CE = "CE0", PSEL_IREG_RESET = "RESET0",
    parameter PADDSUB_IREG_CLK = "BYPASS", PADDSUB_IREG_CE = "CE0", PADDSUB_IREG_RESET = "RESET0",
    parameter ADDSUB0_IREG_CLK = "BYPASS", ADDSUB0_IREG_CE = "CE0", ADDSUB0_IREG_RESET = "RESET0",
    parameter ADDSUB1_IREG_CLK = "BYPASS", ADDSUB1_IREG_CE = "CE0", ADDSUB1_IREG_RESET = "RESET0",
    parameter CSEL_IREG_CLK = "BYPASS", CSEL_IREG_CE = "CE0", CSEL_IREG_RESET = "RESET0",
    parameter CASISEL_IREG_CLK = "BYPASS", CASISEL_IREG_CE = "CE0", CASISEL_IREG_RESET = "RESET0",
    parameter ACCSEL_IREG_CLK = "BYPASS", ACCSEL_IREG_CE = "CE0", ACCSEL_IREG_RESET = "RESET0",
    parameter ADDSUB0_PREG_CLK = "BYPASS", ADDSUB0_PREG_CE = "CE0", ADDSUB0_PREG_RESET = "RESET0",
    parameter ADDSUB1_PREG_CLK = "BYPASS", ADDSUB1_PREG_CE = "CE0", ADDSUB1_PREG_RESET = "RESET0",
    parameter CSEL_PREG_CLK = "BYPASS", CSEL_PREG_CE = "CE0", CSEL_PREG_RESET = "RESET0",
    parameter CASISEL_PREG_CLK = "BYPASS", CASISEL_PREG_CE = "CE0", CASISEL_PREG_RESET = "RESET0",
    parameter ACCSEL_PREG_CLK = "BYPASS", ACCSEL_PREG_CE = "CE0", ACCSEL_PREG_RESET = "RESET0",
    parameter DYN_P_SEL = "FALSE", DYN_P_ADDSUB = "FALSE", DYN_A_SEL = "FALSE",
    parameter DYN_ADD_SUB_0 = "FALSE", DYN_ADD_SUB_1 = "FALSE", DYN_C_SEL = "FALSE",
    parameter DYN_CASI_SEL = "FALSE", DYN_ACC_SEL = "FALSE",
    parameter [0:0] P_SEL = 0, P_ADDSUB = 0, A_SEL = 0, ADD_SUB_0 = 0, ADD_SUB_1 = 0,
    parameter [0:0] C_SEL = 1, CASI_SEL = 0, ACC_SEL = 0,
    parameter FB_PREG_EN = "FALSE", SOA_PREG_EN = "FALSE", MULT12X12_EN = "FALSE",
    parameter MULT_RESET_MODE = "SYNC",
    parameter [47:0] PRE_LOAD = 0
) (
    input signed [26:0] A,
    input signed [17:0] B,
    input [47:0] C, CASI,
    input [25:0] D,
    input [26:0] SIA,
    input [1:0] ADDSUB, CLK, CE, RESET,
    input ACCSEL, PSEL, ASEL, PADDSUB, CSEL, CASISEL,
    output [47:0] DOUT
);
    // What adds, or chooses while it runs, is not modelled.
    if (C_SEL || CASI_SEL || ACC_SEL || P_SEL || P_ADDSUB || A_SEL || ADD_SUB_0 || ADD_SUB_1)
        $error("MULTALU27X18: only a product");
    if (DYN_P_SEL != "FALSE" || DYN_P_ADDSUB != "FALSE" || DYN_A_SEL != "FALSE"
        || DYN_ADD_SUB_0 != "FALSE" || DYN_ADD_SUB_1 != "FALSE" || DYN_C_SEL != "FALSE"
        || DYN_CASI_SEL != "FALSE" || DYN_ACC_SEL != "FALSE" || MULT12X12_EN != "FALSE")
        $error("MULTALU27X18: only a mode that is constant");
    // The packer leaves this register's configuration out on GW5AST-138C.
    if (OREG_CLK != "BYPASS")
        $error("MULTALU27X18: no output register");

    reg signed [26:0] a_reg;
    reg signed [17:0] b_reg;
    reg signed [47:0] p_reg;
    wire signed [26:0] a = AREG_CLK == "CLK0" ? a_reg : A;
    wire signed [17:0] b = BREG_CLK == "CLK0" ? b_reg : B;
    wire signed [47:0] product = a * b;
    always @(posedge CLK[0])
        if (RESET[0]) begin
            a_reg <= 0;
            b_reg <= 0;
            p_reg <= 0;
        end else if (CE[0]) begin
            a_reg <= A;
            b_reg <= B;
            p_reg <= product;
        end
    assign DOUT = PREG_CLK == "CLK0" ? p_reg : product;
endmodule
