/*
 * bench_peer.h - our benchmark beside another program's, alternating, on the same weights.
 *
 * Place    `kiln bench engine|train --peer torch|sdcpp`; cmd_bench.c hands its arguments here.
 * Owner    the call; it starts one process at a time and reads what they print (NAME wall S cpu S).
 * Failure  exit codes of command.h; a peer that is not installed is a sentence that names packages.
 *
 * Each round runs the whole of ours, then the whole of the peer's, each in a process of its own.
 * Printed are medians over the rounds, their ratio, and the peak resident memory of each process as the
 * kernel counts it.
 */
#ifndef CLI_BENCH_PEER_H
#define CLI_BENCH_PEER_H

/* argv[0] is "engine" or "train". */
int bench_peer_run(int argc, char **argv);

#endif
