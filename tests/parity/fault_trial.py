"""Seeds faults into copies of the CUDA kernel sources and shows that the emulated tests notice.

usage: fault_trial.py SOURCE_ROOT BUILD_ROOT [--only WORD] [--sample N] [--jobs N] [--limit SECONDS] [--list]

Each fault is one replacement in one file. The kernel or host file is compiled again with it, linked with the
objects of the test that the build made, and the test must fail (or hang: 400 s, several times what
the longest takes on a loaded machine; without a fault it must end before, or nothing is judged).
Prints how many were caught, by what, and exits 1 when fewer than the floor below were. Nothing in the
tree changes. --sample: so many of the files that compile in seconds, spread over them, each of which must be
caught; the ordinary tests do that. --list: one line a fault, and none whose text is gone from its file.
"""
import argparse
import concurrent.futures
import os
import re
import subprocess
import sys
import tempfile

FLOOR = 0.9  # of all faults
QUICK = ["attention_simple", "gemm_simple", "norm", "pointwise", "rearrange", "reduce"]  # compile in seconds

# kernel file that is compiled again, test that must notice, file to change, what, old text, new text
GEMM, SIMPLE = ("gemm_f16", "cuda_gemm"), ("gemm_simple", "cuda_gemm")
FLASH, GRAD = ("attention_f16", "cuda_attention"), ("attention_grad_f16", "cuda_attention")
ROWS, NORM = ("attention_simple", "cuda_attention"), ("norm", "cuda_norm")
MOVE, REDUCE = ("rearrange", "cuda_pointwise"), ("reduce", "cuda_pointwise")
POINT, SLABS = ("pointwise", "cuda_pointwise"), ("gemm_f16", "cuda_attention")
HALF = ("gemm_f16_half", "cuda_gemm")
WGMMA = ("gemm_wgmma_f16", "cuda_wgmma")
FLASH90 = ("attention_wgmma_f16", "cuda_wgmma")
BANDS = ("cuda_norm_conv", "cuda_norm_conv")  # a host file
FAULTS = [
    # products with fp16 sums
    (HALF, "gemm_kernel.h", "second half of a slice is lost", "mma_half(sum, fa[1][i], fb[1] + 2 * n);", ""),
    (HALF, "gemm_kernel.h", "first step's operand twice", "mma_half(sum, fa[1][i], fb[1] + 2 * n);", "mma_half(sum, fa[0][i], fb[1] + 2 * n);"),
    (HALF, "gemm_kernel.h", "last columns from the pair before", "(warp_n + WN - 8 + lane % 8)", "(warp_n + WN - 16 + lane % 8)"),
    (HALF, "gemm_kernel.h", "fp16 sums into the neighbour's row", "acc[2 * r] += lo;", "acc[2 - 2 * r] += lo;"),
    (HALF, "gemm_kernel.h", "fp16 sums only of the first", "acc[2 * r + 1] += hi;", "acc[2 * r + 1] = hi;"),
    # products: synchronisation
    (GEMM, "gemm_kernel.h", "no barrier a slice", "        block_sync();\n        int next", "        int next"),
    (GEMM, "gemm_kernel.h", "waits for one slice less", "copy_wait<gemm_stages - 2>()", "copy_wait<gemm_stages - 1>()"),
    (GEMM, "gemm_kernel.h", "fills the stage in use", "stage == 0 ? gemm_stages - 1 : stage - 1", "stage"),
    (GEMM, "gemm_kernel.h", "no commit in the loop", "stage - 1);\n        copy_commit();", "stage - 1);"),
    # products: guards
    (GEMM, "gemm_kernel.h", "rows beyond m are stored", "if (m >= p.m) continue;", ""),
    (GEMM, "gemm_kernel.h", "weight rows beyond n are read", "live = k + 8 * chunk < k_to && n0 + row < p.n;", "live = k + 8 * chunk < k_to;"),
    (GEMM, "gemm_kernel.h", "k beyond the split is read", "live = k + 8 * chunk < k_to && n0 + row < p.n;", "live = n0 + row < p.n;"),
    (SLABS, "gemm_kernel.h", "rows of a transposed operand that do not exist", "k + row < p.b_rows && ", ""),
    (GEMM, "gemm_kernel.h", "columns of a transposed operand beyond n", " && n0 + 8 * chunk < p.n;", ";"),
    (GEMM, "epilogue.h", "columns beyond n are stored", "        if (n >= p.n) return;\n        const gemm_epilogue &e = p.epilogue;\n        const bool second", "        const gemm_epilogue &e = p.epilogue;\n        const bool second"),
    (GEMM, "epilogue.h", "pairs at odd pitches", "((p.y_pitch & 1) | ", "("),
    # products: addressing
    (GEMM, "gemm_kernel.h", "rows in shared memory without their gap", "a_pitch = gemm_slice * 2 + 16;", "a_pitch = gemm_slice * 2;"),
    (GEMM, "gemm_kernel.h", "rows of the transposed operand without their gap", "TRANSPOSED ? TN * 2 + 16 : a_pitch", "TRANSPOSED ? TN * 2 : a_pitch"),
    (GEMM, "gemm_kernel.h", "wrong half of the A fragment", "a_lane = (warp_m + lane % 16) * S::a_pitch + lane / 16 * 16", "a_lane = (warp_m + lane % 16) * S::a_pitch + lane / 8 % 2 * 16"),
    (GEMM, "gemm_kernel.h", "second k16 step reads the first", "at + a_lane + 16 * i * S::a_pitch + 32 * step", "at + a_lane + 16 * i * S::a_pitch"),
    (GEMM, "gemm_kernel.h", "the gather moves by half a slice", "a_at.advance(s, gemm_slice);", "a_at.advance(s, gemm_slice / 2);"),
    (GEMM, "gemm_kernel.h", "no wrapping at the top", "if (y < 0) y += s.limit_h;\n        else if", "if"),
    (GEMM, "gemm_kernel.h", "taps bleed over the right edge", "(unsigned)x < (unsigned)s.limit_w &&", ""),
    (GEMM, "gemm_kernel.h", "gradient of stride 2 reads odd pixels", "((y | x) & s.mask) == 0", "true"),
    (GEMM, "gemm_kernel.h", "gradient taps run forward", "r.x + s.sign * tap_x", "r.x + tap_x"),
    (GEMM, "gemm_kernel.h", "every split starts at 0", "k_from = split * p.k_per_split", "k_from = 0"),
    (GEMM, "gemm_kernel.h", "phases share their partial sums", "((int64_t)block_z() * p.m + m)", "((int64_t)split * p.m + m)"),
    (SIMPLE, "gemm_simple.cu", "the last split is forgotten", "split < p.splits; split++) {\n        word8", "split < p.splits - 1; split++) {\n        word8"),
    (SIMPLE, "gemm_simple.cu", "no barrier before the next slice", "16 * ty, shared_b + 16 * tx);\n        block_sync();\n    }\n    UNROLL\n    for (int i = 0; i < 4; i++) {\n        if (m0", "16 * ty, shared_b + 16 * tx);\n    }\n    UNROLL\n    for (int i = 0; i < 4; i++) {\n        if (m0"),
    (SIMPLE, "gemm_simple.cu", "dw overwrites", "global_load<float>(to) + sum", "sum"),
    # epilogues
    (GEMM, "epilogue.h", "phases swapped", "(2 * oy + phase_y) * 2", "(2 * oy + phase_x) * 2"),
    (GEMM, "epilogue.h", "bias of the neighbour", "load_as(e.bias, e.bias_dtype, n + 1)", "load_as(e.bias, e.bias_dtype, n)"),
    (GEMM, "epilogue.h", "gate bias is the value's", "p.n / 2 + j + i", "j + i"),
    (GEMM, "epilogue.h", "activation of one of two", "v[0] = activate(e.act, v[0]), v[1] = activate(e.act, v[1]);", "v[0] = activate(e.act, v[0]);"),
    (GEMM, "epilogue.h", "one image's row for all", "at / e.rows_per_image * e.row_pitch", "0"),
    # products of compute capability 9.0: synchronisation
    (WGMMA, "gemm_wgmma_kernel.h", "a stage is not waited for", "phase_wait(full + 8 * ring.stage, ring.parity);", ""),
    (WGMMA, "gemm_wgmma_kernel.h", "a stage is filled before it is empty", "phase_wait(empty + 8 * ring.stage, ring.parity ^ 1);", ""),
    (WGMMA, "gemm_wgmma_kernel.h", "the wrong phase of a full stage", "full + 8 * ring.stage, ring.parity)", "full + 8 * ring.stage, ring.parity ^ 1)"),
    (WGMMA, "gemm_wgmma_kernel.h", "the wrong phase of an empty stage", "empty + 8 * ring.stage, ring.parity ^ 1)", "empty + 8 * ring.stage, ring.parity)"),
    (WGMMA, "gemm_wgmma_kernel.h", "the parity does not turn", "parity ^= 1;", ""),
    (WGMMA, "gemm_wgmma_kernel.h", "no fence before the products", "group_fence();", ""),
    (WGMMA, "gemm_wgmma_kernel.h", "no commit", "group_commit();", ""),
    (WGMMA, "gemm_wgmma_kernel.h", "a stage is given back while it is read", "group_wait<1>();", "group_wait<2>();"),
    (WGMMA, "gemm_wgmma_kernel.h", "the stage in use is given back", "lane == 0) phase_arrive(empty + 8 * last);\n            last", "lane == 0) phase_arrive(empty + 8 * ring.stage);\n            last"),
    (WGMMA, "gemm_wgmma_kernel.h", "sums are read before they are there", "group_wait<0>();", ""),
    (WGMMA, "gemm_wgmma_kernel.h", "a tile's last stage is kept", "if (slices.from < slices.to && lane == 0) phase_arrive(empty + 8 * last);", ""),
    (WGMMA, "gemm_wgmma_kernel.h", "four warps are enough", "phase_init(empty + 8 * i, wgmma_warps);", "phase_init(empty + 8 * i, 4);"),
    (WGMMA, "gemm_wgmma_kernel.h", "bytes of A alone are waited for", "phase_expect(arrived, S::stage_bytes);", "phase_expect(arrived, S::a_bytes);"),
    (WGMMA, "gemm_wgmma_kernel.h", "barriers that copies do not see", "phase_init_visible();", ""),
    (WGMMA, "gemm_wgmma_kernel.h", "no block barrier after the barriers are made", "    block_sync();", ""),
    (WGMMA, "gemm_wgmma_kernel.h", "more registers than there are", "registers_take<232>", "registers_take<240>"),
    # and its addressing
    (WGMMA, "wrap_hopper.h", "wrong stride in the descriptor", "return matrix_descriptor(at, 16, 1024);", "return matrix_descriptor(at, 16, 2048);"),
    (WGMMA, "wrap_hopper.h", "wrong swizzle in the descriptor", "(uint64_t)1 << 62", "(uint64_t)2 << 62"),
    (WGMMA, "gemm_wgmma_kernel.h", "tiles off the swizzle's pattern", "stages = base + (wgmma_align - base % wgmma_align) % wgmma_align;", "stages = base;"),
    (WGMMA, "gemm_wgmma_kernel.h", "B moves by twice 16 k", "b + (32 >> 4) * step", "b + (64 >> 4) * step"),
    (WGMMA, "gemm_wgmma_kernel.h", "the second 64 rows are the first", "a + (8192 >> 4) * i +", "a +"),
    (WGMMA, "gemm_wgmma_kernel.h", "both groups multiply the same rows", "matrix_rows(at + group * (S::a_bytes / 2));", "matrix_rows(at);"),
    (WGMMA, "gemm_wgmma_kernel.h", "weights of the first tap for all", "arrived, c, tap, tile.n, tile.phase);", "arrived, c, 0, tile.n, tile.phase);"),
    (WGMMA, "gemm_wgmma_kernel.h", "weights of the first phase for all", "arrived, c, tap, tile.n, tile.phase);", "arrived, c, tap, tile.n, 0);"),
    (WGMMA, "gemm_wgmma_kernel.h", "phases turned", "tap_x + (tile.phase & 1)", "tap_x + (tile.phase >> 1)"),
    (WGMMA, "gemm_wgmma_kernel.h", "stride forgotten along a line", "pixel % s.row_px * s.step", "pixel % s.row_px"),
    (WGMMA, "gemm_wgmma_kernel.h", "every split starts at 0", "from = split * each < all ? split * each : all;", "from = 0;"),
    (WGMMA, "gemm_wgmma_kernel.h", "rows beyond m are stored", "if (row_m >= g.m) continue;", ""),
    (WGMMA, "gemm_wgmma_kernel.h", "a gate is its value", "&sums[4 * j + 4 + 2 * half]", "&sums[4 * j + 2 * half]"),
    # attention of compute capability 9.0
    (FLASH90, "attention_wgmma_kernel.h", "K is not waited for", "phase_wait(room.k_full + 8 * stage, round >> 1 & 1);", ""),
    (FLASH90, "attention_wgmma_kernel.h", "V is not waited for", "phase_wait(room.v_full + 8 * stage, round >> 1 & 1);", ""),
    (FLASH90, "attention_wgmma_kernel.h", "the phase of V turns every tile", "phase_wait(room.v_full + 8 * stage, round >> 1 & 1);", "phase_wait(room.v_full + 8 * stage, round & 1);"),
    (FLASH90, "attention_wgmma_kernel.h", "next K over the K in use", "phase_wait(room.k_empty + 8 * stage, parity ^ 1);", ""),
    (FLASH90, "attention_wgmma_kernel.h", "V is given back while it is read", "group_wait<0>();\n            registers_hold(y);", "registers_hold(y);"),
    (FLASH90, "attention_wgmma_kernel.h", "scores are read before they are there", "group_wait<1>();", "group_wait<2>();"),
    (FLASH90, "attention_wgmma_kernel.h", "no fence at all", "group_fence();", ""),
    (FLASH90, "attention_wgmma_kernel.h", "the second panel of K is the first", "matrix_rows(k + step / 4 * S::panel + step % 4 * 32)", "matrix_rows(k + step % 4 * 32)"),
    (FLASH90, "attention_wgmma_kernel.h", "wrong step between V's panels", "matrix_columns(v + step * 16 * 128, S::panel)", "matrix_columns(v + step * 16 * 128, S::panel / 2)"),
    (FLASH90, "attention_wgmma_kernel.h", "both groups have the same queries", "q = room.q + 64 * 128 * group,", "q = room.q,"),
    (FLASH90, "attention_wgmma_kernel.h", "keys beyond the last", "at >= lk || ", ""),
    (FLASH90, "attention_wgmma_kernel.h", "causal mask of the upper rows for all", "at > row + i / 2 % 2 * 8", "at > row"),
    (FLASH90, "attention_wgmma_kernel.h", "the sum is not rescaled", "sum[half] * shrink[half] + part", "sum[half] + part"),
    (FLASH90, "attention_wgmma_kernel.h", "y shrinks by the other row", "y[i] *= shrink[i / 2 % 2]", "y[i] *= shrink[i % 2]"),
    (FLASH90, "attention_wgmma_kernel.h", "queries beyond the last are stored", "if (at >= lq) continue;", ""),
    (FLASH90, "attention_wgmma_kernel.h", "heads and images turned", "head, first, image);", "image, first, head);"),
    # attention
    (FLASH, "attention_kernel.h", "no barrier before K is read", "        block_sync(); /* K has", "        /* K has"),
    (FLASH, "attention_kernel.h", "no barrier before V is read", "        block_sync(); /* V has", "        /* V has"),
    (FLASH, "attention_kernel.h", "V is not waited for", "        copy_wait<1>();\n        block_sync(); /* V has", "        block_sync(); /* V has"),
    (FLASH, "attention_kernel.h", "next K over the K in use", "shared_k + (stage ^ 1) * tile_bytes", "shared_k + stage * tile_bytes"),
    (FLASH, "attention_kernel.h", "keys beyond the last", "at >= lk || ", ""),
    (FLASH, "attention_kernel.h", "causal mask of the upper rows for all", "at > row + e / 2 * 8", "at > row"),
    (FLASH, "attention_kernel.h", "the sum is not rescaled", "sum[half] = sum[half] * shrink + part;", "sum[half] = sum[half] + part;"),
    (FLASH, "attention_kernel.h", "one round less", "(keys + KEYS - 1) / KEYS", "keys / KEYS"),
    (FLASH, "attention_tile.h", "half of a quad's sum", "return v + shuffle_xor(v, 2);", "return v + shuffle_xor(v, 1);"),
    (FLASH, "attention_tile.h", "rows in shared memory without their gap", "(chunks | 1) * 16", "chunks * 16"),
    (FLASH, "attention_tile.h", "queries beyond the last are stored", "if (row >= rows) continue;", ""),
    (FLASH, "attention_tile.h", "columns beyond the head are read", " && 8 * chunk < d;", ";"),
    (FLASH, "attention_tile.h", "k8 remainder from the wrong columns", "matrix_load2(half, rows + (lane % 16) * tile<D>::pitch + 32 * tile<D>::steps);", "matrix_load2(half, rows + (lane % 16) * tile<D>::pitch);"),
    (GRAD, "attention_grad_kernel.h", "delta is forgotten", "weight * (ds[j][e] - mean)", "weight * ds[j][e]"),
    (GRAD, "attention_grad_kernel.h", "no barrier a round", "        block_sync(); /* the tiles", "        /* the tiles"),
    (GRAD, "attention_grad_kernel.h", "tiles are not waited for", "        copy_wait<0>();\n        block_sync(); /* the tiles", "        block_sync(); /* the tiles"),
    (GRAD, "attention_grad_kernel.h", "causal from the wrong query", "from = first / PASSING * PASSING", "from = first + PASSING"),
    (ROWS, "attention_simple.cu", "cells reused without a barrier", "    block_sync(); /* the cells' former use is over */\n", ""),
    # norms
    (NORM, "norm.cu", "Chan's correction without a count", "(count * other_count / whole)", "(count / whole)"),
    (NORM, "norm.cu", "squares around zero", "squares[i] - sum[i] * mean", "squares[i]"),
    (NORM, "norm.cu", "no barrier in the tree", "        block_sync();\n        if (t < half) {\n            word16", "        if (t < half) {\n            word16"),
    (NORM, "norm.cu", "elements beyond the row count", "at + i < p.a.d ? c.v[i] - mean : 0.0f", "c.v[i] - mean"),
    (NORM, "norm.cu", "the slope forgets xhat", " - xhat * bits_to_float(sums.word[1])", ""),
    (NORM, "norm.cu", "all row lanes counted alike", "int64_t rows = row_to - row_from - l;", "int64_t rows = row_to - row_from;"),
    # pointwise
    (POINT, "pointwise.cu", "GEGLU rows half as long", "value = row * 2 * a.d + column;", "value = row * a.d + column;"),
    (MOVE, "rearrange.cu", "transpose without a barrier", "    block_sync();\n    for (int i = y; i < turn_tile", "    for (int i = y; i < turn_tile"),
    (REDUCE, "reduce.cu", "column sum of seven", "for (int i = 1; i < 8; i++) sum", "for (int i = 1; i < 7; i++) sum"),
    (REDUCE, "reduce.cu", "block sum without barriers", "        block_sync();\n        if (t < half)\n            shared_store(sums", "        if (t < half)\n            shared_store(sums"),
    (MOVE, "rearrange.cu", "nearest rounds down", "(i * large + small - 1) / small", "i * large / small"),
    (POINT, "pointwise.cu", "add repeats b from its start", "s.at % p.b_count", "0"),
    # attention's backward: lse and delta of passing queries
    (GRAD, "attention_grad_kernel.h", "lse and delta of the round before", "(stage ^ 1) * PASSING + thread_index()", "stage * PASSING + thread_index()"),
    (GRAD, "attention_grad_kernel.h", "lse and delta of the other stage", "(stage * PASSING + 8 * j + lane % 4 * 2) * 8", "((stage ^ 1) * PASSING + 8 * j + lane % 4 * 2) * 8"),
    (GRAD, "attention_grad_kernel.h", "queries beyond the last have an lse", "if (query < lq) {", "{"),
    (GRAD, "attention_grad_kernel.h", "the lower rows' lse for the upper", "own_pair[1] = query_pair(lse, delta, row + 8, lq);", "own_pair[1] = query_pair(lse, delta, row, lq);"),
    (ROWS, "attention_simple.cu", "keys see queries before them", "int64_t i = p.a.causal ? r.row : 0", "int64_t i = 0"),
    (ROWS, "attention_simple.cu", "dq without its scale", "at, d, (float)p.a.scale, p.accumulate);\n}\n\ntemplate <class T, int HELD> KERNEL(rows_threads, 1) attention_rows_dkv", "at, d, 1.0f, p.accumulate);\n}\n\ntemplate <class T, int HELD> KERNEL(rows_threads, 1) attention_rows_dkv"),
    # norms, backward
    (NORM, "norm.cu", "dgamma without xhat", "sum_xhat[i] += dz * xhat;", "sum_xhat[i] += dz;"),
    (NORM, "norm.cu", "group's mean of the slope over rows alone", "const float count = (float)(p.a.rows * width);", "const float count = (float)p.a.rows;"),
    (NORM, "norm.cu", "dx overwrites", "x.v[i] = p.accumulate ? old.v[i] + slope : slope;", "x.v[i] = slope;"),
    (NORM, "norm.cu", "dgamma overwrites", "global_store(p.dgamma + c, global_load<float>(p.dgamma + c) + b)", "global_store(p.dgamma + c, b)"),
    (NORM, "norm.cu", "layer norm's slope of one pass", "vx.v[i] = rstd * (u - mean_u - xhat * mean_xhat);", "vx.v[i] = rstd * (u - mean_u);"),
    (NORM, "norm.cu", "layer norm's gradients without a barrier", "    block_sync();\n    if (y != 0 || column >= p.a.d) return;", "    if (y != 0 || column >= p.a.d) return;"),
    # a convolution of a normalised picture in bands
    (BANDS, "cuda_norm_conv.c", "a band without the line below it", "below = !whole && (first + lines < a->h || a->circular);", "below = 0;"),
    (BANDS, "cuda_norm_conv.c", "every band is written over the first", "(image * a->oh + first) * row;", "image * a->oh * row;"),
    (BANDS, "cuda_norm_conv.c", "statistics of the first picture for all", "(float *)b->norm.mean + image * b->norm.groups", "(float *)b->norm.mean"),
    # resampling and windows
    (MOVE, "rearrange.cu", "the gradient skips an output line", "row < rows; row++, dy += p.ow * p.c", "row < rows; row++, dy += 2 * p.ow * p.c"),
    (MOVE, "rearrange.cu", "the gradient's first column for all", "v.load(dy + column * p.c,", "v.load(dy,"),
    (MOVE, "rearrange.cu", "the gradient starts at the picture's left", "+ top) * p.ow + left) * p.c + c", "+ top) * p.ow) * p.c + c"),
    (MOVE, "rearrange.cu", "bilinear beyond the lower edge", "y1 = y0 + 1 < p.h ? y0 + 1 : y0", "y1 = y0 + 1"),
    (MOVE, "rearrange.cu", "bilinear from corners", "((float)i + 0.5f) * (float)from / (float)to - 0.5f", "(float)i * (float)from / (float)to"),
    (MOVE, "rearrange.cu", "windows beyond the edge count", "if (row < 0 || row >= p.h || column < 0 || column >= p.w) continue;", "if (row < 0 || row >= p.h) continue;"),
    (MOVE, "rearrange.cu", "the largest of all below zero is zero", "if (!any || v.v[i] > most.v[i])", "if (v.v[i] > most.v[i])"),
    (MOVE, "rearrange.cu", "an embedding's gradient overwrites", "global_load<float>(to) + v);", "v);"),
    (MOVE, "rearrange.cu", "copies overwrite where they should add", "if (p.accumulate) v += to_float(global_load<TY>(y));", ""),
    # sums, losses, optimisers
    (REDUCE, "reduce.cu", "mean square error without weights", "sum += weight * off * off;", "sum += off * off;"),
    (REDUCE, "reduce.cu", "the loss forgets the last block", "i < p.sums; i++) sum", "i < p.sums - 1; i++) sum"),
    (REDUCE, "reduce.cu", "the slope of the loss without its two", "2 * p.scale / (double)p.count", "p.scale / (double)p.count"),
    (REDUCE, "reduce.cu", "AdamW: decay within the step", "param - p.lr * (step + p.weight_decay * param)", "param - p.lr * step"),
    (REDUCE, "reduce.cu", "AdamW: second moment of the gradient itself", "p.rest2 * g * g;\n    const float param", "p.rest2 * g;\n    const float param"),
    (REDUCE, "reduce.cu", "AdamW: eps under the root", "(sqrtf(v * p.v_unbias) + p.eps);\n    global_store(p.m + at, m);", "sqrtf(v * p.v_unbias + p.eps);\n    global_store(p.m + at, m);"),
    (REDUCE, "reduce.cu", "AdamW 8 bit: top without a barrier behind it", "    block_sync();\n    return shared_load<float>(room);", "    return shared_load<float>(room);"),
    (REDUCE, "reduce.cu", "AdamW 8 bit: codes rounded down", "x > .5f * (table[at + half - 1] + table[at + half])", "x > table[at + half]"),
    (POINT, "pointwise.cu", "the gate's slope without the value", "slope.v[i] * value.v[i] * gelu_slope(gate.v[i])", "slope.v[i] * gelu_slope(gate.v[i])"),
    (POINT, "pointwise.cu", "products overwrite where they should add", "p.accumulate ? old.v[i] + va.v[i] * vb.v[i] : va.v[i] * vb.v[i]", "va.v[i] * vb.v[i]"),
    (POINT, "pointwise.cu", "a slope of what is not there", "slope.v[i] * activate_slope(a.act, v.v[i])", "slope.v[i] * activate(a.act, v.v[i])"),
]


def replace(source, old, new):
    """Layout does not matter for finding the place: a run of blanks matches any other."""
    pattern = r"\s+".join(re.escape(word) for word in old.split())
    found = re.findall(pattern, source)
    if not found:
        return None
    return re.sub(pattern, lambda _: new, source, count=1)


def library_objects(build):
    names = ["tensor/libtensor.a", "kernels/cuda/libcuda_emulated.a", "kernels/libkernels.a", "base/libbase.a"]
    return [os.path.join(build, name) for name in names]


def trial(root, build, fault, limit_s):
    """(verdict, why); a fault whose new text is its old text is the control and must be missed"""
    (kernel, test), name, what, old, new = fault
    with tempfile.TemporaryDirectory(prefix="kiln-fault-") as work:
        folder = os.path.join(work, "kernels", "cuda")
        os.makedirs(folder)
        with open(os.path.join(root, "kernels", "cuda", name)) as f:
            changed = replace(f.read(), old, new)
        if changed is None:
            return "stale", "its text is not in the file any more"
        with open(os.path.join(folder, name), "w") as f:
            f.write(changed)
        mutant = os.path.join(work, "mutant.o")
        host = name.endswith(".c")
        language = ["gcc", "-std=c11"] if host else ["g++", "-std=c++17", "-DKILN_EMULATED"]
        source = os.path.join(folder, name) if host else os.path.join(
            root, "kernels/cuda/emulator", "kernel_%s.cpp" % kernel)
        compile_line = language + ["-O1", "-w", "-D_GNU_SOURCE", "-fPIC", "-I", work, "-I", root, "-c", source,
                                   "-o", mutant]
        done = subprocess.run(compile_line, capture_output=True, text=True)
        if done.returncode != 0:
            return "stale", "does not compile: " + done.stderr.splitlines()[0]
        binary = os.path.join(work, "test")
        objects = os.path.join(build, "tests/parity", "parity_%s.p" % test)
        parts = [os.path.join(objects, o) for o in sorted(os.listdir(objects)) if o.endswith(".o")]
        libraries = [os.path.join(build, "tests/parity/libcuda_parity.a")] + library_objects(build)
        link_line = ["g++", "-o", binary] + parts + [mutant] + ["-Wl,--start-group"] + libraries + [
            "-Wl,--end-group", "-lcmocka", "-lm", "-ldl", "-lpthread"]
        done = subprocess.run(link_line, capture_output=True, text=True)
        if done.returncode != 0:
            return "stale", "does not link: " + done.stderr.splitlines()[-1]
        try:
            done = subprocess.run([binary], capture_output=True, text=True, timeout=limit_s,
                                  env={**os.environ, "CMOCKA_TEST_ABORT": "1"})
        except subprocess.TimeoutExpired:
            return "caught", "hangs"
        if done.returncode == 0:
            return "missed", ""
        said = re.search(r"side 2: (.*)|ERROR: (.*)", done.stdout + done.stderr)
        if said:
            return "caught", (said.group(1) or said.group(2))[:130]
        return "caught", "exit %d" % done.returncode


def sample(faults, count):
    """Turn by turn one of each quick file, from its list's end: the newest."""
    lists = [[f for f in faults if f[0][0] == name] for name in QUICK]
    turns = [l[-1 - turn] for turn in range(len(faults)) for l in lists if turn < len(l)]
    return turns[:count]


def list_faults(root, faults):
    stale = 0
    for _, name, what, old, new in faults:
        with open(os.path.join(root, "kernels", "cuda", name)) as f:
            gone = replace(f.read(), old, new) is None
        stale += gone
        print("%s: %s%s" % (name, what, " -- STALE" if gone else ""))
    print("%d faults, %d stale" % (len(faults), stale))
    return 1 if stale else 0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("root")
    parser.add_argument("build")
    parser.add_argument("--only", default="")
    parser.add_argument("--sample", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--limit", type=int, default=400)
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args()
    faults = [f for f in FAULTS if options.only in f[1] + " " + f[2]]
    if options.sample:
        faults = sample(faults, options.sample)
    if options.list:
        return list_faults(options.root, faults)
    counts = {"caught": 0, "missed": 0, "stale": 0}
    # the programs of a sample run without a fault in the same suite
    for kernel, test in [] if options.sample else sorted({fault[0] for fault in faults}):
        source = next(f[1] for f in faults if f[0] == (kernel, test))
        control = ((kernel, test), source, "control", "#include", "#include")
        verdict, why = trial(options.root, options.build, control, options.limit)
        if verdict != "missed":
            print("control: %s without a fault: %s %s" % (test, verdict, why))
            return 1
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        running = [pool.submit(trial, options.root, options.build, f, options.limit) for f in faults]
        for fault, future in zip(faults, running):
            verdict, why = future.result()
            counts[verdict] += 1
            print("%-6s %s: %s%s" % (verdict, fault[1], fault[2], " -- " + why if why else ""), flush=True)
    print("%d of %d seeded faults caught, %d missed, %d stale" %
          (counts["caught"], len(faults), counts["missed"], counts["stale"]))
    floor = len(faults) if options.sample else FLOOR * len(faults)
    return 0 if not counts["stale"] and counts["caught"] >= floor else 1


sys.exit(main())
