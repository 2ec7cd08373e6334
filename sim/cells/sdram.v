// Model of an SDRAM (single data rate, 16 bits wide, four banks), from the rules that the datasheets
// of IS42S16160G, W9825G6KH, AS4C16M16SA and MT48LC16M16A2 have in common; the times are the slowest
// of theirs. It keeps the bytes, and watches whoever drives it: the first rule that is broken stays
// on `fault` (see the codes below) and is displayed.
//
// Not modelled, and a fault: auto precharge, burst terminate, power down and self refresh, bursts that
// a command cuts short. A full page burst, interleaved order and single writes are faults as well.
//
// Words that were never written read as UNWRITTEN, and pins that nobody drives as FLOATING. HALVES
// says how late data are seen outside: so many half cycles after the clock's edge.
module sdram #(
    parameter CLOCK_PS = 10000,
    parameter ROW_BITS = 13, COLUMN_BITS = 9,
    parameter HALVES = 1,
    parameter CK_CAS2_PS = 10000, CK_CAS3_PS = 7500,
    parameter RCD_PS = 21000, RP_PS = 21000, RAS_PS = 45000, RC_PS = 67500, RFC_PS = 70000,
    parameter RRD_PS = 15000, WR_PS = 15000,
    parameter WR_CYCLES = 2, MRD_CYCLES = 2,
    parameter RAS_MAX_NS = 100000, POWER_UP_NS = 200000,
    parameter INIT_REFRESHES = 8,
    parameter REFRESHES = 8192, REFRESH_NS = 64000000,
    parameter REFRESH_GAP_NS = 70312,
    parameter [15:0] UNWRITTEN = 16'hdead, FLOATING = 16'hf10a
) (
    input clk,  // of the chip: commands and data are taken at its rising edge
    input restart = 1'b0,  // as if power came after this cycle; the words stay
    input cke, cs_n, ras_n, cas_n, we_n,
    input [1:0] bank,
    input [12:0] address,
    input [1:0] dqm,
    input [15:0] dq_i,
    input dq_driven,  // from outside
    output [15:0] dq_o,
    output dq_oe,
    output reg [7:0] fault
);
    localparam [7:0]
        POWER_UP = 1,       // a command before the time to power up was over
        INIT_ORDER = 2,     // refreshed before all was precharged, or used before it was initialised
        MODE = 3,           // a mode that does not exist or is not modelled
        CLOCK = 4,          // a clock too fast for the CAS latency
        MRD = 5,            // a command too early after the mode was set
        RCD = 6,            // a column command too early after activate
        RP = 7,             // a command too early after precharge
        RAS = 8,            // precharge too early after activate
        RAS_MAX = 9,        // a row open for too long
        RC = 10,            // activate too early after activate of the same bank
        RRD = 11,           // activate too early after activate of another bank
        RFC = 12,           // a command too early after refresh
        WR = 13,            // precharge too early after the last written data
        OPEN = 14,          // activate of a bank with an open row
        CLOSED = 15,        // a column command to a bank without an open row
        NOT_IDLE = 16,      // refresh or mode register set with a row open or data on their way
        REFRESH_LATE = 17,  // too few refreshes
        BURST = 18,         // a command that cuts a burst short
        CONTENTION = 19,    // the pins driven from both sides, or turned around within a cycle
        UNDRIVEN = 20,      // data to write, and nobody drives the pins
        ADDRESS = 21,       // a row or column that does not exist
        UNSUPPORTED = 22;   // auto precharge, burst terminate, clock enable low

    // Times in cycles, rounded up.
    localparam RCD_MIN = (RCD_PS + CLOCK_PS - 1) / CLOCK_PS;
    localparam RP_MIN = (RP_PS + CLOCK_PS - 1) / CLOCK_PS;
    localparam RAS_MIN = (RAS_PS + CLOCK_PS - 1) / CLOCK_PS;
    localparam RC_MIN = (RC_PS + CLOCK_PS - 1) / CLOCK_PS;
    localparam RRD_MIN = (RRD_PS + CLOCK_PS - 1) / CLOCK_PS;
    localparam RFC_MIN = (RFC_PS + CLOCK_PS - 1) / CLOCK_PS;
    localparam WR_TIME = (WR_PS + CLOCK_PS - 1) / CLOCK_PS;
    localparam WR_MIN = WR_TIME > WR_CYCLES ? WR_TIME : WR_CYCLES;
    localparam [63:0] POWER_UP_MIN = (64'd1000 * POWER_UP_NS + CLOCK_PS - 1) / CLOCK_PS;
    // These are at most, and rounded down.
    localparam [63:0] RAS_MOST = 64'd1000 * RAS_MAX_NS / CLOCK_PS;
    localparam [63:0] GAP_MOST = 64'd1000 * REFRESH_GAP_NS / CLOCK_PS;
    localparam [63:0] WINDOW = 64'd1000 * REFRESH_NS / CLOCK_PS;

    localparam [2:0] MODE_SET = 3'b000, REFRESH = 3'b001, PRECHARGE = 3'b010, ACTIVATE = 3'b011;
    localparam [2:0] WRITE = 3'b100, READ = 3'b101, TERMINATE = 3'b110, NOP = 3'b111;

    localparam WORDS = 4 << (ROW_BITS + COLUMN_BITS);
    reg [15:0] words [0:WORDS - 1];
    integer i;
    initial for (i = 0; i < WORDS; i = i + 1) words[i] = UNWRITTEN;

    reg [63:0] now = 0;  // cycles, the first edge is 1
    reg [7:0] found = 0;
    initial fault = 0;

    task broken(input [7:0] code);
        if (found == 0) found = code;
    endtask

    // What has been.
    reg started = 0, precharged = 0, mode_known = 0, up = 0;
    reg [7:0] refreshes = 0;  // before the chip was up
    reg [63:0] mode_time = 0, refresh_time = 0, any_activate = 0;
    reg any_refresh = 0, any_active = 0;
    reg [3:0] open = 0, used = 0, closed_once = 0, written = 0;
    reg [12:0] row [0:3];
    reg [63:0] activated [0:3];
    reg [63:0] closed [0:3];
    reg [63:0] last_data [0:3];  // written
    // The times of the last refreshes. Before there were so many, all rows are as fresh as the chip.
    reg [63:0] refreshed [0:REFRESHES - 1];
    reg [63:0] window_start = 0;
    reg [31:0] slot = 0;
    reg wrapped = 0;

    reg [1:0] cas = 3;
    reg [3:0] length = 1;
    reg [3:0] left = 0, index = 0;  // of the burst under way
    reg writing = 0;
    reg [1:0] burst_bank = 0;
    reg [12:0] burst_row = 0;
    reg [COLUMN_BITS - 1:0] first = 0, column = 0;
    reg [31:0] place = 0;

    // Data read: accessed, a cycle later, and on the pins.
    reg [15:0] data1 = 0, data2 = 0, seen = FLOATING;
    reg valid1 = 0, valid2 = 0, drives = 0, drove = 0, earlier = 0;  // after this edge, before it, and before that
    reg [1:0] dqm1 = 0, lanes = 0;  // `lanes`: bytes that are driven

    wire [2:0] command = {ras_n, cas_n, we_n};
    integer b;

    task close_bank(input [1:0] which);
        if (open[which]) begin
            if (left != 0 && burst_bank == which) broken(BURST);
            if (now - activated[which] < RAS_MIN) broken(RAS);
            if (now - activated[which] > RAS_MOST) broken(RAS_MAX);
            if (written[which] && now - last_data[which] < WR_MIN) broken(WR);
            open[which] = 0;
            closed[which] = now;
            closed_once[which] = 1;
        end
    endtask

    task check_idle;
        begin
            if (open != 0 || left != 0 || valid1 || valid2) broken(NOT_IDLE);
            for (b = 0; b < 4; b = b + 1)
                if (closed_once[b] && now - closed[b] < RP_MIN) broken(RP);
        end
    endtask

    task start_burst(input is_write);
        begin
            if (!up) broken(INIT_ORDER);
            if (address[10]) broken(UNSUPPORTED);
            if ({address[12:11], address[9:0]} >> COLUMN_BITS != 0) broken(ADDRESS);
            if (left != 0) broken(BURST);
            if (!open[bank]) broken(CLOSED);
            else if (now - activated[bank] < RCD_MIN) broken(RCD);
            left = length;
            index = 0;
            writing = is_write;
            burst_bank = bank;
            burst_row = row[bank];
            first = address[COLUMN_BITS - 1:0];
        end
    endtask

    always @(posedge clk) begin
        now = now + 1;
        if (up && now - window_start > WINDOW) broken(REFRESH_LATE);
        if (up && now - refresh_time > GAP_MOST) broken(REFRESH_LATE);
        if (!cke) begin
            if (started) broken(UNSUPPORTED);
        end else if (!cs_n && command != NOP) begin
            started = 1;
            if (now < POWER_UP_MIN) broken(POWER_UP);
            if (mode_known && now - mode_time < MRD_CYCLES) broken(MRD);
            if (any_refresh && now - refresh_time < RFC_MIN) broken(RFC);
            case (command)
                MODE_SET: begin
                    check_idle;
                    if (!precharged) broken(INIT_ORDER);
                    if (bank != 0 || address[12:7] != 0 || address[3]) broken(MODE);
                    if (address[2:0] > 3) broken(MODE);
                    if (address[6:4] != 2 && address[6:4] != 3) broken(MODE);
                    if (CLOCK_PS < (address[6:4] == 2 ? CK_CAS2_PS : CK_CAS3_PS)) broken(CLOCK);
                    cas = address[5:4];
                    length = 4'd1 << address[1:0];
                    mode_known = 1;
                    mode_time = now;
                end
                REFRESH: begin
                    check_idle;
                    if (!precharged) broken(INIT_ORDER);
                    refreshes = refreshes + {7'd0, refreshes < INIT_REFRESHES};
                    any_refresh = 1;
                    refresh_time = now;
                    if (up) begin
                        refreshed[slot] = now;
                        slot = slot + 1;
                        if (slot == REFRESHES) begin
                            slot = 0;
                            wrapped = 1;
                        end
                        if (wrapped) window_start = refreshed[slot];
                    end
                end
                PRECHARGE:
                    if (address[10]) begin
                        for (b = 0; b < 4; b = b + 1) close_bank(b[1:0]);
                        precharged = 1;
                        // Before there was one, nobody knows what is open.
                        if (!up) for (b = 0; b < 4; b = b + 1) closed[b] = now;
                        if (!up) closed_once = 4'b1111;
                    end else close_bank(bank);
                ACTIVATE: begin
                    if (!(precharged && mode_known && refreshes >= INIT_REFRESHES))
                        broken(INIT_ORDER);
                    if (!up) begin
                        up = 1;
                        window_start = now;
                    end
                    if (open[bank]) broken(OPEN);
                    if (closed_once[bank] && now - closed[bank] < RP_MIN) broken(RP);
                    if (used[bank] && now - activated[bank] < RC_MIN) broken(RC);
                    if (any_active && now - any_activate < RRD_MIN) broken(RRD);
                    if (address >> ROW_BITS != 0) broken(ADDRESS);
                    open[bank] = 1;
                    used[bank] = 1;
                    written[bank] = 0;
                    row[bank] = address;
                    activated[bank] = now;
                    any_active = 1;
                    any_activate = now;
                end
                READ: start_burst(0);
                WRITE: start_burst(1);
                default: broken(UNSUPPORTED);
            endcase
        end

        // The pins, for a cycle: what was accessed a CAS latency less one ago, without bytes that
        // were masked a cycle ago.
        earlier = drove;
        drove = drives;
        lanes = (cas == 2 ? valid1 : valid2) ? ~dqm1 : 2'b00;
        drives = lanes != 0;
        if (dq_driven && (drives || drove || earlier)) broken(CONTENTION);
        seen[7:0] = lanes[0] ? (cas == 2 ? data1[7:0] : data2[7:0]) : FLOATING[7:0];
        seen[15:8] = lanes[1] ? (cas == 2 ? data1[15:8] : data2[15:8]) : FLOATING[15:8];
        dqm1 = dqm;
        valid2 = valid1;
        data2 = data1;
        valid1 = 0;
        if (left != 0) begin
            column = first & ~(length - 1) | (first + index) & (length - 1);
            place = {burst_bank, burst_row[ROW_BITS - 1:0], column};
            if (writing) begin
                if (dqm != 2'b11 && !dq_driven) broken(UNDRIVEN);
                if (!dqm[0]) words[place][7:0] = dq_i[7:0];
                if (!dqm[1]) words[place][15:8] = dq_i[15:8];
                written[burst_bank] = 1;
                last_data[burst_bank] = now;
            end else begin
                valid1 = 1;
                data1 = words[place];
            end
            left = left - 1;
            index = index + 1;
        end
        if (found != 0 && fault == 0) begin
            case (found)
                POWER_UP: $write("sdram: command before the time to power up was over");
                INIT_ORDER: $write("sdram: command before the chip was initialised");
                MODE: $write("sdram: mode %h", address);
                CLOCK: $write("sdram: clock too fast for the CAS latency");
                MRD: $write("sdram: command too early after mode register set");
                RCD: $write("sdram: column command too early after activate");
                RP: $write("sdram: command too early after precharge");
                RAS: $write("sdram: precharge too early after activate");
                RAS_MAX: $write("sdram: row open for too long");
                RC: $write("sdram: activate too early after activate of its bank");
                RRD: $write("sdram: activate too early after activate of another bank");
                RFC: $write("sdram: command too early after refresh");
                WR: $write("sdram: precharge too early after a write");
                OPEN: $write("sdram: activate of a bank with an open row");
                CLOSED: $write("sdram: column command without an open row");
                NOT_IDLE: $write("sdram: refresh or mode register set while not idle");
                REFRESH_LATE: $write("sdram: refresh is late");
                BURST: $write("sdram: burst cut short");
                CONTENTION: $write("sdram: dq driven from both sides");
                UNDRIVEN: $write("sdram: dq not driven for a write");
                ADDRESS: $write("sdram: address %h does not exist", address);
                default: $write("sdram: command not supported");
            endcase
            $display(" (cycle %0d, command %b, bank %0d)", now, {ras_n, cas_n, we_n}, bank);
        end
        fault <= found;
        if (restart) begin
            now = 0;
            found = 0;
            fault <= 0;
            {started, precharged, mode_known, up, any_refresh, any_active, wrapped} = 0;
            {open, used, closed_once, written} = 0;
            {refreshes, slot, left} = 0;
            {valid1, valid2, drives, drove, earlier} = 0;
        end
        late0 <= {drives, seen};
    end

    // From the edge to the pins outside.
    reg [16:0] late0 = {1'b0, FLOATING}, late1 = {1'b0, FLOATING}, late2 = {1'b0, FLOATING};
    always @(negedge clk) late1 <= late0;
    always @(posedge clk) late2 <= late1;
    assign {dq_oe, dq_o} = HALVES == 0 ? late0 : HALVES == 1 ? late1 : late2;
endmodule
