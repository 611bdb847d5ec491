#include <stdlib.h>
#include <string.h>
#include <webp/encode.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/str.h"
#include "practice.h"

/* what the pocket model knows how to draw */
static const char *const shapes[] = {"pot", "vase", "jug", "bowl", "bottle"};
static const char *const glazes[] = {"red", "blue", "green", "white", "black", "ochre"};
static const char *const grounds[] = {"a wooden table", "a grey ground", "a blue ground", "linen"};

struct script { /* bodies still to be fired */
    json_t **list;
    int count, next;
    int forms_left;
    int64_t started_ms;
};

static struct script script;

/* ---- lists given as "a,b,c" ------------------------------------------------------------- */

static int list_count(const char *list)
{
    int n = 1;
    for (; *list; list++) n += *list == ',';
    return n;
}

static void list_item(const char *list, int index, char *to, size_t room)
{
    while (index-- && strchr(list, ',')) list = strchr(list, ',') + 1;
    size_t n = strcspn(list, ",");
    str_copy(to, n + 1 < room ? n + 1 : room, list);
}

static void pick(struct practice *p, const char *list, char *to, size_t room)
{
    list_item(list, (int)(practice_random(p) % (uint64_t)list_count(list)), to, room);
}

static int between(struct practice *p, int least, int most)
{
    return least + (int)(practice_random(p) % (uint64_t)(most - least + 1));
}

/* ---- pictures to start from ------------------------------------------------------------- */

/* A disc on a ground with a gradient; with `mask` white where it is to be repainted. */
static char *picture(struct practice *p, int width, int height, bool mask)
{
    uint8_t *rgb = alloc_zero((size_t)width * (size_t)height, 3), *webp = NULL;
    int cx = width / 2, cy = height / 2, r = (width < height ? width : height) / 3;
    uint8_t colour[3] = {(uint8_t)practice_random(p), (uint8_t)practice_random(p), 90};
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++) {
            uint8_t *to = rgb + ((size_t)y * (size_t)width + (size_t)x) * 3;
            bool inside = (x - cx) * (x - cx) + (y - cy) * (y - cy) < r * r;
            for (int k = 0; k < 3; k++)
                to[k] = mask     ? (inside ? 255 : 0)
                        : inside ? colour[k]
                                 : (uint8_t)(y * 255 / height);
        }
    size_t length = WebPEncodeLosslessRGB(rgb, width, height, width * 3, &webp);
    char *text = store_encode_base64(webp, length);
    WebPFree(webp);
    free(rgb);
    return text;
}

static void add_picture(struct practice *p, json_t *body, const char *key, int width, int height,
                        bool mask)
{
    char *text = picture(p, width, height, mask);
    json_object_set_new(body, key, json_string(text));
    free(text);
}

/* ---- making a request ------------------------------------------------------------------- */

static char *prompts_text;

static char *make_prompt(struct practice *p)
{
    if (prompts_text) {
        int lines = 0, want;
        for (const char *s = prompts_text; *s; s++) lines += *s == '\n';
        want = lines ? between(p, 0, lines - 1) : 0;
        const char *line = prompts_text;
        while (want--) line = strchr(line, '\n') + 1;
        return alloc_string_n(line, strcspn(line, "\n"));
    }
    return alloc_printf("a %s %s on %s%s", glazes[between(p, 0, 5)], shapes[between(p, 0, 4)],
                        grounds[between(p, 0, 3)], between(p, 0, 3) ? "" : " ### blurry, cracked");
}

static const char *const posts[] = {
    "RealESRGAN_x4plus", "RealESRGAN_x2plus", "RealESRGAN_x4plus_anime_6B",
    "NMKD_Siax",         "4x_AnimeSharp",     "GFPGAN",
    "CodeFormers",       "strip_background"};

static void add_control(struct practice *p, json_t *body, json_t *params, int width, int height,
                        bool map_only)
{
    static const char *const maps[] = {"canny", "scribble"}; /* drawn without a network */
    add_picture(p, body, "source_image", width, height, false);
    json_object_set_new(params, "denoising_strength", json_real(0.1 * between(p, 3, 10)));
    json_object_set_new(params, "control_type",
                        json_string(map_only ? maps[between(p, 0, 1)] : "canny"));
    if (map_only) json_object_set_new(params, "return_control_map", json_true());
}

static void add_kind(struct practice *p, const char *kind, json_t *body, json_t *params, int width,
                     int height)
{
    if (str_equal(kind, "batch")) {
        json_object_set_new(params, "n", json_integer(between(p, 2, 4)));
    } else if (str_equal(kind, "img2img") || str_equal(kind, "inpainting") ||
               str_equal(kind, "outpainting")) {
        add_picture(p, body, "source_image", width, height, false);
        json_object_set_new(params, "denoising_strength", json_real(0.1 * between(p, 3, 10)));
        if (!str_equal(kind, "img2img")) {
            add_picture(p, body, "source_mask", width, height, true);
            json_object_set_new(body, "source_processing", json_string(kind));
        }
    } else if (str_equal(kind, "control") || str_equal(kind, "controlmap")) {
        add_control(p, body, params, width, height, str_equal(kind, "controlmap"));
    } else if (str_equal(kind, "hires") || str_equal(kind, "twopass")) {
        json_object_set_new(params, "hires_fix", json_true());
        /* below 512 hires fix is one pass */
        for (int i = 0; i < 2 && str_equal(kind, "twopass"); i++)
            json_object_set_new(params, i ? "width" : "height", json_integer(576));
    } else if (str_equal(kind, "tiling")) {
        json_object_set_new(params, "tiling", json_true());
    } else if (str_equal(kind, "transparent")) {
        json_object_set_new(params, "transparent", json_true());
    } else if (str_equal(kind, "clipskip")) {
        json_object_set_new(params, "clip_skip", json_integer(2));
    } else if (str_equal(kind, "post")) {
        json_object_set_new(params, "post_processing",
                            json_pack("[s]", posts[between(p, 0, COUNT_OF(posts) - 1)]));
    } else if (str_equal(kind, "lora")) {
        json_object_set_new(params, "loras",
                            json_pack("[{s:s,s:f}]", "name", "practice-lora", "model", 0.8));
    } else if (str_equal(kind, "ti")) {
        json_object_set_new(params, "tis", json_pack("[{s:s}]", "name", "7808"));
    }
}

static json_t *make_body(struct practice *p)
{
    const struct options *o = &p->options;
    char size[32], sampler[32], model[128], kind[32], seed[24];
    int width = 128, height = 128;
    pick(p, o->sizes, size, sizeof size);
    sscanf(size, "%dx%d", &width, &height);
    pick(p, o->samplers, sampler, sizeof sampler);
    pick(p, o->models, model, sizeof model);
    pick(p, o->kinds, kind, sizeof kind);
    snprintf(seed, sizeof seed, "%u", (unsigned)practice_random(p));
    char *prompt = make_prompt(p);
    json_t *params =
        json_pack("{s:i,s:i,s:i,s:s,s:f,s:s,s:b}", "width", width, "height", height, "steps",
                  between(p, o->steps_least, o->steps_most), "sampler_name", sampler, "cfg_scale",
                  0.5 * between(p, 4, 16), "seed", seed, "karras", between(p, 0, 1));
    json_t *body = json_pack("{s:s,s:o,s:[s],s:b,s:b,s:b}", "prompt", prompt, "params", params,
                             "models", model, "nsfw", 0, "censor_nsfw", 1, "r2", o->r2);
    free(prompt);
    add_kind(p, kind, body, params, width, height);
    return body;
}

/* ---- firing ----------------------------------------------------------------------------- */

static void append(json_t *body)
{
    script.list = alloc_grow(script.list, (size_t)script.count + 1, sizeof *script.list);
    script.list[script.count++] = body;
}

static int read_jobs(struct practice *p, struct error *err)
{
    struct buf b;
    buf_init(&b, 64u << 20);
    int rc = buf_read_file(&b, p->options.jobs_file, err), line = 1;
    for (char *text = (char *)b.data; !rc && text && *text; line++) {
        char *end = strchr(text, '\n');
        if (end) *end = '\0';
        if (*text && *text != '#') {
            json_t *body = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
            if (!json_is_object(body))
                rc = error_set(err, ERR_FORMAT, "%s line %d is no request", p->options.jobs_file,
                               line);
            else
                append(body);
        }
        text = end ? end + 1 : NULL;
    }
    buf_release(&b);
    return rc;
}

int fire_start(struct practice *p, struct error *err)
{
    int rc = 0;
    if (p->options.prompts) {
        struct buf b;
        size_t length;
        buf_init(&b, 4u << 20);
        rc = buf_read_file(&b, p->options.prompts, err);
        if (!rc) prompts_text = (char *)buf_take(&b, &length);
        buf_release(&b);
    }
    if (!rc && p->options.jobs_file) rc = read_jobs(p, err);
    for (int i = 0; i < p->options.jobs && !rc; i++) append(make_body(p));
    script.forms_left = p->options.forms;
    script.started_ms = practice_ms(p);
    return rc;
}

static void fire_image(struct practice *p, json_t *body)
{
    struct call c = {
        .method = "POST", .path = "script", .kind = "fire", .status = 200, .body = body};
    c.user = p->users[1];
    struct image_ask *a = ask_new(p, p->users[1], body, &c);
    if (a) {
        a->own = true;
        p->own_open++;
        p->fired++;
    } else {
        log_exchange(p, &c); /* the script asked for what no horde takes */
    }
    json_decref(c.reply);
    json_decref(body);
}

static void fire_form(struct practice *p)
{
    char name[64];
    char *source = picture(p, 128, 128, false);
    pick(p, p->options.form_names, name, sizeof name);
    json_t *body = json_pack("{s:[{s:s}],s:s}", "forms", "name", name, "source_image", source);
    free(source);
    struct call c = {.method = "POST",
                     .path = "script",
                     .kind = "fire",
                     .status = 200,
                     .body = body,
                     .key = p->users[1]->key};
    alchemy_async(p, &c);
    if (c.status == 202) {
        p->form_asks[p->form_ask_count - 1]->own = true;
        p->own_open++;
        p->fired++;
    }
    json_decref(c.reply);
    json_decref(body);
}

static int own_waiting(struct practice *p)
{
    int n = 0;
    for (int i = p->first_open; i < p->ask_count; i++)
        n += p->asks[i]->own && p->asks[i]->waiting > 0;
    return n;
}

void fire_tick(struct practice *p)
{
    double seconds = (double)(practice_ms(p) - script.started_ms) / 1000;
    int due = p->options.rate > 0 ? (int)(seconds * p->options.rate) + 1 : script.count;
    int room = p->options.max_waiting ? p->options.max_waiting - own_waiting(p) : script.count;
    while (script.next < script.count && script.next < due && room-- > 0)
        fire_image(p, script.list[script.next++]);
    while (script.forms_left > 0) {
        fire_form(p);
        script.forms_left--;
    }
}

bool fire_over(struct practice *p)
{
    return script.next == script.count && script.forms_left == 0 && p->own_open == 0 &&
           p->fired > 0;
}
