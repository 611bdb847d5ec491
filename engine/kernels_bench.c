#include "engine/kernels_bench.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/engine.h"
#include "kernels/kernel_bench.h"

static const char usage[] =
    "usage: kiln bench kernels [--device NAME] [--only TEXT] [--seconds S] [--quick] [--json]\n"
    "\n"
    "Times every kernel on the shapes of SD1.5, SDXL and the VAE: milliseconds, TFLOP/s or GB/s,\n"
    "the share of what a register-only loop or a plain copy reaches in the same run, and the\n"
    "error of a sample of results against float64.\n"
    "\n"
    "  --device NAME   cpu, cpu:THREADS, cuda, cuda:N (default cuda)\n"
    "  --only TEXT     cases whose name contains TEXT, such as \"attention\"\n"
    "  --seconds S     about as long on each case (0.2)\n"
    "  --quick         small shapes once: is it right, rather than how fast\n"
    "  --json          one object with all cases\n";

int kernels_bench_main(int argc, char **argv)
{
    static const struct option table[] = {
        {"device", required_argument, NULL, 'd'},
        {"only", required_argument, NULL, 'o'},
        {"seconds", required_argument, NULL, 's'},
        {"quick", no_argument, NULL, 'q'},
        {"json", no_argument, NULL, 'j'},
        {"help", no_argument, NULL, 'h'},
        {0},
    };
    struct kernel_bench_options options = {0};
    const char *name = "cuda";
    for (int c; (c = getopt_long(argc, argv, "", table, NULL)) != -1;) {
        char *end = NULL;
        switch (c) {
        case 'd': name = optarg; break;
        case 'o': options.only = optarg; break;
        case 'q': options.quick = true; break;
        case 'j': options.json = true; break;
        case 'h': fputs(usage, stdout); return 0;
        case 's':
            options.seconds = strtod(optarg, &end);
            if (end != optarg && !*end && options.seconds > 0 && options.seconds <= 60) break;
            fputs("kiln bench kernels: --seconds takes a number above 0, at most 60\n", stderr);
            return 2;
        default: fputs(usage, stderr); return 2;
        }
    }
    struct device *d;
    struct error err = {0};
    int rc = device_open(&d, name, &err);
    if (!rc) {
        rc = kernel_bench_run(d, &options, stdout, &err);
        device_close(d);
    }
    if (rc) fprintf(stderr, "kiln bench kernels: %s\n", err.text);
    return rc == ERR_DEVICE ? ENGINE_EXIT_DEVICE : rc ? 1 : 0;
}
