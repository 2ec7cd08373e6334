// Block RAM of ECP5, from the vendor's "ECP5 and ECP5-5G Memory User Guide" (FPGA-TN-02204).
//
// 1024 words of 18 bits. A port of 1, 2, 4, 9 or 18 bits addresses its own words; with 36 bits, port
// A writes and port B reads both halves of an even pair, the low half on A's pins. Chip selects and
// resets are not modelled: whoever makes an instance keeps them off. Reading a word in the cycle in
// which the other port writes it is undefined on the device; here it reads the old word.
module DP16KD #(
  parameter DATA_WIDTH_A = 18, DATA_WIDTH_B = 18,
  parameter REGMODE_A = "NOREG", REGMODE_B = "NOREG",
  parameter WRITEMODE_A = "NORMAL", WRITEMODE_B = "NORMAL",
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
  input [13:0] ADA, ADB,
  input [17:0] DIA, DIB,
  input CLKA, CLKB, CEA, CEB, OCEA, OCEB, WEA, WEB,
  output [17:0] DOA, DOB
);
  localparam WIDE = DATA_WIDTH_A == 36 || DATA_WIDTH_B == 36;
  localparam [20479:0] INIT = {
    INITVAL_3F, INITVAL_3E, INITVAL_3D, INITVAL_3C, INITVAL_3B, INITVAL_3A, INITVAL_39, INITVAL_38,
    INITVAL_37, INITVAL_36, INITVAL_35, INITVAL_34, INITVAL_33, INITVAL_32, INITVAL_31, INITVAL_30,
    INITVAL_2F, INITVAL_2E, INITVAL_2D, INITVAL_2C, INITVAL_2B, INITVAL_2A, INITVAL_29, INITVAL_28,
    INITVAL_27, INITVAL_26, INITVAL_25, INITVAL_24, INITVAL_23, INITVAL_22, INITVAL_21, INITVAL_20,
    INITVAL_1F, INITVAL_1E, INITVAL_1D, INITVAL_1C, INITVAL_1B, INITVAL_1A, INITVAL_19, INITVAL_18,
    INITVAL_17, INITVAL_16, INITVAL_15, INITVAL_14, INITVAL_13, INITVAL_12, INITVAL_11, INITVAL_10,
    INITVAL_0F, INITVAL_0E, INITVAL_0D, INITVAL_0C, INITVAL_0B, INITVAL_0A, INITVAL_09, INITVAL_08,
    INITVAL_07, INITVAL_06, INITVAL_05, INITVAL_04, INITVAL_03, INITVAL_02, INITVAL_01, INITVAL_00
  };
  reg [17:0] words[0:1023];
  reg [17:0] out_a, out_b, kept_a, kept_b;
  integer index;
  initial begin
    for (index = 0; index < 1024; index = index + 1) words[index] = INIT[20 * index +: 18];
    if (WIDE && (DATA_WIDTH_A != 36 || (DATA_WIDTH_B != 36 && DATA_WIDTH_B != 18)))
      $error("DP16KD: no model for widths %0d, %0d", DATA_WIDTH_A, DATA_WIDTH_B);
    if (WRITEMODE_A != "NORMAL" && WRITEMODE_A != "READBEFOREWRITE")
      $error("DP16KD: no model for WRITEMODE_A %s", WRITEMODE_A);
    if (WRITEMODE_B != "NORMAL" && WRITEMODE_B != "READBEFOREWRITE")
      $error("DP16KD: no model for WRITEMODE_B %s", WRITEMODE_B);
  end

  // Lowest bit, within its word of 18, of what a narrow port addresses.
  function [4:0] offset(input integer width, input [3:0] low);
    case (width)
      1: offset = {1'b0, low} + {4'b0, low[3]};
      2: offset = {1'b0, low[3:1], 1'b0} + {4'b0, low[3]};
      4: offset = {1'b0, low[3:2], 2'b0} + {4'b0, low[3]};
      9: offset = low[3] ? 5'd9 : 5'd0;
      default: offset = 0;
    endcase
  endfunction

  // Bits that a port of 18 or fewer writes of its word.
  function [17:0] written(input integer width, input [3:0] low);
    case (width)
      1: written = 18'h1 << offset(1, low);
      2: written = 18'h3 << offset(2, low);
      4: written = 18'hf << offset(4, low);
      9: written = 18'h1ff << offset(9, low);
      default: written = {{9{low[1]}}, {9{low[0]}}};
    endcase
  endfunction

  wire [17:0] mask_a = written(DATA_WIDTH_A, ADA[3:0]);
  wire [17:0] mask_b = written(DATA_WIDTH_B, ADB[3:0]);
  wire [17:0] wide_low = {{9{ADA[1]}}, {9{ADA[0]}}};
  wire [17:0] wide_high = {{9{ADA[3]}}, {9{ADA[2]}}};

  always @(posedge CLKA) if (CEA) begin
    if (DATA_WIDTH_A == 36) begin
      if (WEA) begin
        words[{ADA[13:5], 1'b0}] <= words[{ADA[13:5], 1'b0}] & ~wide_low | DIA & wide_low;
        words[{ADA[13:5], 1'b1}] <= words[{ADA[13:5], 1'b1}] & ~wide_high | DIB & wide_high;
      end
    end else begin
      if (WEA)
        words[ADA[13:4]] <= words[ADA[13:4]] & ~mask_a
                            | (DIA << offset(DATA_WIDTH_A, ADA[3:0])) & mask_a;
      if (!WEA || WRITEMODE_A == "READBEFOREWRITE")
        out_a <= words[ADA[13:4]] >> offset(DATA_WIDTH_A, ADA[3:0]);
    end
  end

  always @(posedge CLKB) if (CEB) begin
    if (DATA_WIDTH_B == 36) begin
      out_a <= words[{ADB[13:5], 1'b0}];
      out_b <= words[{ADB[13:5], 1'b1}];
    end else begin
      if (WEB && !WIDE)
        words[ADB[13:4]] <= words[ADB[13:4]] & ~mask_b
                            | (DIB << offset(DATA_WIDTH_B, ADB[3:0])) & mask_b;
      if (!WEB || WRITEMODE_B == "READBEFOREWRITE")
        out_b <= words[ADB[13:4]] >> offset(DATA_WIDTH_B, ADB[3:0]);
    end
  end

  wire clock_a = DATA_WIDTH_B == 36 ? CLKB : CLKA;
  wire keep_a = DATA_WIDTH_B == 36 ? OCEB : OCEA;
  always @(posedge clock_a) if (keep_a) kept_a <= out_a;
  always @(posedge CLKB) if (OCEB) kept_b <= out_b;
  assign DOA = (DATA_WIDTH_B == 36 ? REGMODE_B == "OUTREG" : REGMODE_A == "OUTREG") ? kept_a : out_a;
  assign DOB = REGMODE_B == "OUTREG" ? kept_b : out_b;
endmodule
