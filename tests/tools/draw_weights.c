/*
 * draw_weights.c - a safetensors file of tensors drawn by rule (tests/support/drawn.h).
 *
 * usage: kiln-draw-weights OUT.safetensors TABLE... [NAME=VALUE]...
 */
#include <stdio.h>

#include "tests/support/drawn.h"

int main(int argc, char **argv)
{
    struct error err = {0};
    if (argc < 3) {
        fprintf(stderr, "usage: kiln-draw-weights OUT.safetensors TABLE... [NAME=VALUE]...\n");
        return 2;
    }
    if (!drawn_write(argv[1], (const char *const *)argv + 2, argc - 2, &err)) return 0;
    fprintf(stderr, "kiln-draw-weights: %s\n", err.text);
    return 1;
}
