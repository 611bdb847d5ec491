/*
 * qr_code.h - a QR code of a text, at the highest level of error correction, and its picture.
 *
 * Place    before pipeline_qr.c, which hides it in a picture.
 * Owner    qr_code_make / qr_code_release around the caller's struct; drawings are the caller's
 *          memory. Any thread.
 * Failure  ERR_INVALID for a text that no code holds.
 * Source   ISO/IEC 18004 (byte mode, level H, versions 1 to 40); the looks of modules are those of
 *          lincolnloop/python-qrcode, which the Horde's worker uses.
 */
#ifndef DIFFUSION_CONTROL_QR_CODE_H
#define DIFFUSION_CONTROL_QR_CODE_H

#include "base/error.h"
#include "proto/request.h"

#define QR_FINDER_MODULES 7 /* side of the three large squares */

struct qr_code {
    int side;      /* modules: 17 + 4 * version */
    uint8_t *dark; /* [side,side], 1 = dark */
};

int qr_code_make(struct qr_code *code, const char *text, struct error *err);
void qr_code_release(struct qr_code *code);

/* Pixels of a side with modules of `module_px` and a light border. */
int qr_code_size_px(const struct qr_code *code, int module_px, int border_modules);
/* grey [n,n] of that size, 0 dark .. 1 light. */
void qr_code_draw(float *grey, const struct qr_code *code, int module_px, int border_modules,
                  enum qr_drawer drawer);

#endif
