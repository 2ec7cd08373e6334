// Buffer of a clock, with a gate that changes while the clock is low.
module DCCA(CLKI, CE, CLKO);
  input CLKI, CE;
  output CLKO;

  reg taken = 1'b1;

  always @(negedge CLKI) taken <= CE;
  assign CLKO = CLKI & taken;
endmodule
