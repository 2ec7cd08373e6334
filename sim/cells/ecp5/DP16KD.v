// Model of the ECP5's block RAM of 18 kbit, from Lattice's "ECP5 and ECP5-5G Memory Usage Guide".
//
// Modelled: two ports of 1, 2, 4, 9 or 18 bits, and one of each as a port of 36 bits to write (A) and
// one of 36 bits to read (B); with or without output registers, synchronous resets, writes that leave
// the output as it is (NORMAL) or show there what they replace (READBEFOREWRITE), chip selects,
// initial contents. Anything else stops the simulation: write-through, inverted clocks, asynchronous
// resets. Bits that one port reads while the other one writes them are void: they come out inverted.
module DP16KD #(
    parameter DATA_WIDTH_A = 18, DATA_WIDTH_B = 18,
    parameter REGMODE_A = "NOREG", REGMODE_B = "NOREG",
    parameter RESETMODE = "SYNC", ASYNC_RESET_RELEASE = "SYNC",
    parameter CSDECODE_A = "0b000", CSDECODE_B = "0b000",
    parameter WRITEMODE_A = "NORMAL", WRITEMODE_B = "NORMAL",
    parameter CLKAMUX = "CLKA", CLKBMUX = "CLKB", GSR = "ENABLED", INIT_DATA = "STATIC",
    parameter [319:0] INITVAL_00 = 0, INITVAL_01 = 0, INITVAL_02 = 0, INITVAL_03 = 0,
    parameter [319:0] INITVAL_04 = 0, INITVAL_05 = 0, INITVAL_06 = 0, INITVAL_07 = 0,
    parameter [319:0] INITVAL_08 = 0, INITVAL_09 = 0, INITVAL_0A = 0, INITVAL_0B = 0,
    parameter [319:0] INITVAL_0C = 0, INITVAL_0D = 0, INITVAL_0E = 0, INITVAL_0F = 0,
    parameter [319:0] INITVAL_10 = 0, INITVAL_11 = 0, INITVAL_12 = 0, INITVAL_13 = 0,
    parameter [319:0] INITVAL_14 = 0, INITVAL_15 = 0, INITVAL_16 = 0, INITVAL_17 = 0,
    parameter [319:0] INITVAL_18 = 0, INITVAL_19 = 0, INITVAL_1A = 0, INITVAL_1B = 0,
    parameter [319:0] INITVAL_1C = 0, INITVAL_1D = 0, INITVAL_1E = 0, INITVAL_1F = 0,
    parameter [319:0] INITVAL_20 = 0, INITVAL_21 = 0, INITVAL_22 = 0, INITVAL_23 = 0,
    parameter [319:0] INITVAL_24 = 0, INITVAL_25 = 0, INITVAL_26 = 0, INITVAL_27 = 0,
    parameter [319:0] INITVAL_28 = 0, INITVAL_29 = 0, INITVAL_2A = 0, INITVAL_2B = 0,
    parameter [319:0] INITVAL_2C = 0, INITVAL_2D = 0, INITVAL_2E = 0, INITVAL_2F = 0,
    parameter [319:0] INITVAL_30 = 0, INITVAL_31 = 0, INITVAL_32 = 0, INITVAL_33 = 0,
    parameter [319:0] INITVAL_34 = 0, INITVAL_35 = 0, INITVAL_36 = 0, INITVAL_37 = 0,
    parameter [319:0] INITVAL_38 = 0, INITVAL_39 = 0, INITVAL_3A = 0, INITVAL_3B = 0,
    parameter [319:0] INITVAL_3C = 0, INITVAL_3D = 0, INITVAL_3E = 0, INITVAL_3F = 0
) (
    input ADA0, ADA1, ADA2, ADA3, ADA4, ADA5, ADA6, ADA7, ADA8, ADA9, ADA10, ADA11, ADA12, ADA13,
    input DIA0, DIA1, DIA2, DIA3, DIA4, DIA5, DIA6, DIA7, DIA8, DIA9, DIA10, DIA11, DIA12, DIA13,
          DIA14, DIA15, DIA16, DIA17,
    input CLKA, CEA, OCEA, WEA, RSTA, CSA0, CSA1, CSA2,
    input ADB0, ADB1, ADB2, ADB3, ADB4, ADB5, ADB6, ADB7, ADB8, ADB9, ADB10, ADB11, ADB12, ADB13,
    input DIB0, DIB1, DIB2, DIB3, DIB4, DIB5, DIB6, DIB7, DIB8, DIB9, DIB10, DIB11, DIB12, DIB13,
          DIB14, DIB15, DIB16, DIB17,
    input CLKB, CEB, OCEB, WEB, RSTB, CSB0, CSB1, CSB2,
    output DOA0, DOA1, DOA2, DOA3, DOA4, DOA5, DOA6, DOA7, DOA8, DOA9, DOA10, DOA11, DOA12, DOA13,
           DOA14, DOA15, DOA16, DOA17,
    output DOB0, DOB1, DOB2, DOB3, DOB4, DOB5, DOB6, DOB7, DOB8, DOB9, DOB10, DOB11, DOB12, DOB13,
           DOB14, DOB15, DOB16, DOB17
);
    localparam WORDS = 1024;
    localparam OLD_A = WRITEMODE_A == "READBEFOREWRITE", OLD_B = WRITEMODE_B == "READBEFOREWRITE";

    initial begin
        if (!((DATA_WIDTH_A == 1 || DATA_WIDTH_A == 2 || DATA_WIDTH_A == 4
               || DATA_WIDTH_A == 9 || DATA_WIDTH_A == 18 || DATA_WIDTH_A == 36)
              && (DATA_WIDTH_B == 1 || DATA_WIDTH_B == 2 || DATA_WIDTH_B == 4
                  || DATA_WIDTH_B == 9 || DATA_WIDTH_B == 18 || DATA_WIDTH_B == 36))) begin
            $display("DP16KD %m: widths of %0d and %0d have no model", DATA_WIDTH_A, DATA_WIDTH_B);
            $stop;
        end
        if ((WRITEMODE_A != "NORMAL" && !OLD_A) || (WRITEMODE_B != "NORMAL" && !OLD_B)
            || RESETMODE != "SYNC"
            || CLKAMUX != "CLKA" || CLKBMUX != "CLKB"
            || CSDECODE_A != "0b000" || CSDECODE_B != "0b000"
            || !(REGMODE_A == "NOREG" || REGMODE_A == "OUTREG")
            || !(REGMODE_B == "NOREG" || REGMODE_B == "OUTREG")) begin
            $display("DP16KD %m: a mode without a model");
            $stop;
        end
    end

    wire [13:0] at_a = {ADA13, ADA12, ADA11, ADA10, ADA9, ADA8, ADA7, ADA6, ADA5, ADA4, ADA3, ADA2, ADA1, ADA0};
    wire [13:0] at_b = {ADB13, ADB12, ADB11, ADB10, ADB9, ADB8, ADB7, ADB6, ADB5, ADB4, ADB3, ADB2, ADB1, ADB0};
    wire [17:0] in_a = {DIA17, DIA16, DIA15, DIA14, DIA13, DIA12, DIA11, DIA10, DIA9, DIA8, DIA7, DIA6, DIA5, DIA4, DIA3, DIA2, DIA1, DIA0};
    wire [17:0] in_b = {DIB17, DIB16, DIB15, DIB14, DIB13, DIB12, DIB11, DIB10, DIB9, DIB8, DIB7, DIB6, DIB5, DIB4, DIB3, DIB2, DIB1, DIB0};
    wire on_a = CEA & ~(CSA0 | CSA1 | CSA2), on_b = CEB & ~(CSB0 | CSB1 | CSB2);
    wire write_a = on_a & WEA, write_b = on_b & WEB & (DATA_WIDTH_A != 36);

    // Words of 18 bits: two bytes of nine.
    reg [17:0] words [0:WORDS-1];
    localparam [20479:0] CONTENTS = {INITVAL_3F, INITVAL_3E, INITVAL_3D, INITVAL_3C,
                INITVAL_3B, INITVAL_3A, INITVAL_39, INITVAL_38,
                INITVAL_37, INITVAL_36, INITVAL_35, INITVAL_34,
                INITVAL_33, INITVAL_32, INITVAL_31, INITVAL_30,
                INITVAL_2F, INITVAL_2E, INITVAL_2D, INITVAL_2C,
                INITVAL_2B, INITVAL_2A, INITVAL_29, INITVAL_28,
                INITVAL_27, INITVAL_26, INITVAL_25, INITVAL_24,
                INITVAL_23, INITVAL_22, INITVAL_21, INITVAL_20,
                INITVAL_1F, INITVAL_1E, INITVAL_1D, INITVAL_1C,
                INITVAL_1B, INITVAL_1A, INITVAL_19, INITVAL_18,
                INITVAL_17, INITVAL_16, INITVAL_15, INITVAL_14,
                INITVAL_13, INITVAL_12, INITVAL_11, INITVAL_10,
                INITVAL_0F, INITVAL_0E, INITVAL_0D, INITVAL_0C,
                INITVAL_0B, INITVAL_0A, INITVAL_09, INITVAL_08,
                INITVAL_07, INITVAL_06, INITVAL_05, INITVAL_04,
                INITVAL_03, INITVAL_02, INITVAL_01, INITVAL_00};
    integer i;
    initial for (i = 0; i < WORDS; i = i + 1) words[i] = CONTENTS[20*i +: 18];

    // Of addresses, bits 13 to 4 tell the word. Where a port has 18 bits or 36, the lowest bits
    // enable the bytes that it writes, and its words of 36 are even; bit 3 tells the byte of nine
    // bits of a narrower one, and the bits below it what of its first eight.
    function [4:0] offset(input integer width, input [3:0] low);
        case (width)
            1: offset = {1'b0, low} + {4'b0, low[3]};
            2: offset = {1'b0, low[3:1], 1'b0} + {4'b0, low[3]};
            4: offset = {1'b0, low[3:2], 2'b0} + {4'b0, low[3]};
            9: offset = low[3] ? 5'd9 : 5'd0;
            default: offset = 0;
        endcase
    endfunction

    function [17:0] mask(input integer width, input [3:0] low);
        if (width >= 18) mask = {{9{low[1]}}, {9{low[0]}}};
        else mask = ((18'd1 << width) - 18'd1) << offset(width, low);
    endfunction

    wire [17:0] mask_a = mask(DATA_WIDTH_A, at_a[3:0]), mask_high = mask(36, at_a[3:2]);
    wire [17:0] mask_b = mask(DATA_WIDTH_B, at_b[3:0]);
    wire [17:0] data_a = in_a << offset(DATA_WIDTH_A, at_a[3:0]);
    wire [17:0] data_b = in_b << offset(DATA_WIDTH_B, at_b[3:0]);
    wire [9:0] word_a = DATA_WIDTH_A == 36 ? {at_a[13:5], 1'b0} : at_a[13:4];
    wire [9:0] word_b = DATA_WIDTH_B == 36 ? {at_b[13:5], 1'b0} : at_b[13:4];

    always @(posedge CLKA)
        if (write_a) begin
            words[word_a] <= words[word_a] & ~mask_a | data_a & mask_a;
            if (DATA_WIDTH_A == 36)
                words[word_a | 1] <= words[word_a | 1] & ~mask_high | in_b & mask_high;
        end
    always @(posedge CLKB)
        if (write_b) words[word_b] <= words[word_b] & ~mask_b | data_b & mask_b;

    function [17:0] narrow(input integer width, input [3:0] low, input [17:0] word);
        if (width >= 18) narrow = word;
        else narrow = (word >> offset(width, low)) & ((18'd1 << width) - 18'd1);
    endfunction

    // What the other port writes of the words that are read.
    wire [17:0] void_a = write_b && word_a == word_b ? mask_b : 18'b0;
    wire [17:0] void_b = !write_a ? 18'b0 : word_b == word_a ? mask_a
                         : DATA_WIDTH_A == 36 && word_b == (word_a | 10'd1) ? mask_high : 18'b0;
    wire [17:0] void_high = write_a && DATA_WIDTH_A == 36 && word_a == word_b ? mask_high : 18'b0;
    reg [17:0] latch_a = 0, latch_b = 0, latch_high = 0, out_a = 0, out_b = 0, out_high = 0;
    always @(posedge CLKA) begin
        if (RSTA) latch_a <= 0;
        else if (on_a & (OLD_A | ~WEA))
            latch_a <= narrow(DATA_WIDTH_A, at_a[3:0], words[word_a] ^ void_a);
        if (RSTA) out_a <= 0;
        else if (OCEA) out_a <= latch_a;
    end
    always @(posedge CLKB) begin
        if (RSTB) begin
            latch_b <= 0;
            latch_high <= 0;
        end else if (on_b & (OLD_B | ~WEB)) begin
            latch_b <= narrow(DATA_WIDTH_B, at_b[3:0], words[word_b] ^ void_b);
            latch_high <= words[word_b | 1] ^ void_high;
        end
        if (RSTB) begin
            out_b <= 0;
            out_high <= 0;
        end else if (OCEB) begin
            out_b <= latch_b;
            out_high <= latch_high;
        end
    end

    // A port of 36 bits has its low half on the outputs of port A, the high one on those of B.
    wire [17:0] low_b = REGMODE_B == "OUTREG" ? out_b : latch_b;
    wire [17:0] high_b = REGMODE_B == "OUTREG" ? out_high : latch_high;
    wire [17:0] low_a = REGMODE_A == "OUTREG" ? out_a : latch_a;
    assign {DOA17, DOA16, DOA15, DOA14, DOA13, DOA12, DOA11, DOA10, DOA9, DOA8, DOA7, DOA6, DOA5, DOA4, DOA3, DOA2, DOA1, DOA0} =
        DATA_WIDTH_B == 36 ? low_b : low_a;
    assign {DOB17, DOB16, DOB15, DOB14, DOB13, DOB12, DOB11, DOB10, DOB9, DOB8, DOB7, DOB6, DOB5, DOB4, DOB3, DOB2, DOB1, DOB0} =
        DATA_WIDTH_B == 36 ? high_b : low_b;
endmodule
