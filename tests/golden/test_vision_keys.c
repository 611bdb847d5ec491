/*
 * The published post-processors' layouts (make_vision_keys.py): every tensor has a place in the
 * network, once, or is known to be of no use. The files are holes of the right size: nothing of their
 * data is read.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/str.h"
#include "diffusion/face/codeformer.h"
#include "diffusion/face/gfpgan.h"
#include "diffusion/face/parsenet.h"
#include "diffusion/face/retinaface.h"
#include "diffusion/matte/u2net.h"

static const char *keys_folder;
static char folder[] = "/tmp/kiln-vision-keys-XXXXXX";

static bool is_count(const char *name)
{
    return str_ends(name, "num_batches_tracked");
}

/* A safetensors file whose data part is a hole. */
static char *write_hollow(const char *name)
{
    char line[1024], *path = alloc_printf("%s/%s.safetensors", folder, name);
    char *keys = alloc_printf("%s/%s.txt.gz", keys_folder, name);
    struct buf b;
    struct error err = {0};
    uint64_t at = 0;
    gzFile z = gzopen(keys, "rb");
    if (!z) fail_msg("%s cannot be read", keys);
    buf_init(&b, 16u << 20);
    while (gzgets(z, line, sizeof line)) {
        char *tensor = strtok(line, " \n"), *dim;
        uint64_t bytes = is_count(tensor) ? 8 : 4;
        buf_printf(&b, &err, "%c\"%s\":{\"dtype\":\"%s\",\"shape\":[", b.length ? ',' : '{', tensor,
                   is_count(tensor) ? "I64" : "F32");
        for (int i = 0; (dim = strtok(NULL, " \n")); i++) {
            bytes *= strtoull(dim, NULL, 10);
            buf_printf(&b, &err, "%s%s", i ? "," : "", dim);
        }
        buf_printf(&b, &err, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)at,
                   (unsigned long long)(at + bytes));
        at += bytes;
    }
    gzclose(z);
    buf_printf(&b, &err, "}");
    while (b.length % 8) buf_printf(&b, &err, " ");
    FILE *f = fopen(path, "wb");
    uint64_t header = b.length;
    assert_non_null(f);
    assert_int_equal(fwrite(&header, 8, 1, f), 1);
    assert_int_equal(fwrite(b.data, 1, b.length, f), b.length);
    fflush(f);
    assert_int_equal(ftruncate(fileno(f), (off_t)(8 + b.length + at)), 0);
    fclose(f);
    buf_release(&b);
    free(keys);
    return path;
}

/* used: places filled (of a stacked tensor each part is one); the rest of the file's has none. parameters: of what is used. */
struct tally {
    size_t used, unused;
    double millions;
};

static struct weight_store *open_store(const char *name)
{
    struct weight_store *s;
    struct error err;
    char *path = write_hollow(name);
    if (weight_store_open(&s, path, &err)) fail_msg("%s", err.text);
    free(path);
    return s;
}

static struct tally load(struct weight_store *s, const char *prefix, enum dialect dialect,
                         void (*visit)(struct weight_visitor *v, void *m), void *m)
{
    struct error err = {0};
    struct weight_loading l = {
        .store = s, .prefix = prefix, .component = "the network", .dialect = dialect};
    struct weight_visitor v = {.visit = weight_load, .context = &l, .err = &err};
    visit(&v, m);
    if (v.failed || weight_loading_check(&l, &err)) fail_msg("%s", err.text);
    struct tally t = {.used = l.count, .unused = weight_store_ignored(s, NULL)};
    t.millions = (double)l.bytes / 4e6;
    return t;
}

static void expect(const char *name, struct tally t, size_t used, size_t unused, double millions)
{
    printf("%s: %zu used, %zu not, %.2f M\n", name, t.used, t.unused, t.millions);
    assert_int_equal(t.used, used);
    assert_int_equal(t.unused, unused);
    assert_true(t.millions > millions - 0.005 && t.millions < millions + 0.005);
}

#define VISITOR(network)                                                                           \
    static void visit_##network(struct weight_visitor *v, void *m)                                 \
    {                                                                                              \
        network##_visit(v, m);                                                                     \
    }
VISITOR(gfpgan)
VISITOR(codeformer)
VISITOR(retinaface)
VISITOR(parsenet)
VISITOR(u2net)

/* of no use: the U-Net's pictures (toRGB), the style's own layers, counts of batches */
static void published_gfpgan(void **state)
{
    struct gfpgan m;
    struct error err;
    struct weight_store *s = open_store("gfpgan");
    assert_true(gfpgan_is(s));
    assert_int_equal(gfpgan_detect(&m, s, &err), 0);
    assert_int_equal(m.size, 512);
    expect("gfpgan", load(s, "", DIALECT_LDM, visit_gfpgan, &m), 285 - 14 - 16, 14 + 16, 85.04);
    weight_store_close(s);
}

static void published_codeformer(void **state)
{
    struct codeformer m;
    struct error err;
    struct weight_store *s = open_store("codeformer");
    assert_true(codeformer_is(s));
    assert_int_equal(codeformer_detect(&m, s, &err), 0);
    assert_int_equal(m.size, 512);
    assert_int_equal(m.fuse_count, 4);
    assert_int_equal(m.layer_count, 9);
    expect("codeformer", load(s, "", DIALECT_LDM, visit_codeformer, &m), 515 + 36, 0, 94.11);
    free(m.encoder.list);
    free(m.generator.list);
    free(m.layers);
    weight_store_close(s);
}

static void published_retinaface(void **state)
{
    struct retinaface m;
    struct error err;
    const char *prefix;
    struct weight_store *s = open_store("retinaface");
    assert_int_equal(retinaface_detect(&m, s, &prefix, &err), 0);
    assert_string_equal(prefix, "module.");
    expect("retinaface", load(s, prefix, DIALECT_LDM, visit_retinaface, &m), 456 - 73, 73, 27.35);
    free(m.list);
    weight_store_close(s);
}

static void published_parsenet(void **state)
{
    struct parsenet m;
    struct error err;
    struct weight_store *s = open_store("parsenet");
    assert_int_equal(parsenet_detect(&m, s, &err), 0);
    assert_int_equal(m.classes, 19);
    expect("parsenet", load(s, "", DIALECT_LDM, visit_parsenet, &m), 238 - 38, 38, 21.32);
    free(m.list);
    weight_store_close(s);
}

static void published_u2net(void **state)
{
    struct u2net m;
    struct u2net_config c;
    struct error err;
    enum dialect dialect;
    struct weight_store *s = open_store("u2net");
    assert_int_equal(u2net_detect(&c, s, &dialect, &err), 0);
    assert_int_equal(dialect, DIALECT_LDM);
    u2net_init(&m, &c);
    expect("u2net", load(s, "", dialect, visit_u2net, &m), 798 - 112, 112, 44.04);
    weight_store_close(s);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(published_gfpgan),     cmocka_unit_test(published_codeformer),
        cmocka_unit_test(published_retinaface), cmocka_unit_test(published_parsenet),
        cmocka_unit_test(published_u2net),
    };
    if (argc < 2) {
        fprintf(stderr, "usage: test_vision_keys FOLDER\n");
        return 2;
    }
    keys_folder = argv[1];
    if (!mkdtemp(folder)) return 1;
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    char *clean = alloc_printf("rm -rf %s", folder);
    if (system(clean)) rc = 1;
    free(clean);
    return rc;
}
