#include "diffusion/train/pocket_vocab.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/error.h"

#define SYMBOL_BYTES 32
#define WORD_SYMBOLS 24
#define WORDS_MAX 256

const char *const pocket_words[] = {
    "a",      "an",      "the",     "of",        "with",     "on",         "in",     "and",
    "tall",   "wide",    "slim",    "round",     "vase",     "bowl",       "bottle", "jar",
    "jug",    "cup",     "pot",     "blue",      "green",    "red",        "yellow", "white",
    "black",  "brown",   "grey",    "turquoise", "glaze",    "glazed",     "plain",  "dotted",
    "banded", "striped", "checked", "pattern",   "ground",   "background", "sand",   "rose",
    "sky",    "moss",    "picture", "photo",     "painting", NULL,
};

typedef char symbol[SYMBOL_BYTES];

struct word {
    symbol part[WORD_SYMBOLS];
    int count;
};

/* CLIP's alphabet: printable bytes stand for themselves, the other 68 for U+0100 on. */
static int byte_code(int byte)
{
    if ((byte >= '!' && byte <= '~') || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae) return byte;
    int code = 256;
    for (int b = 0; b < byte; b++)
        if (!((b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || b >= 0xae)) code++;
    return code;
}

/* Ids 0..255: the printable bytes in order, then the rest. */
static int byte_of_id(int id)
{
    int printable = 0;
    for (int pass = 0; pass < 2; pass++)
        for (int b = 0; b < 256; b++) {
            if ((byte_code(b) < 256) != (pass == 0)) continue;
            if (printable++ == id) return b;
        }
    return 0;
}

static void write_symbol(struct buf *out, int id, const char *text, bool first)
{
    buf_append_string(out, first ? "\"" : ", \"", NULL);
    for (const char *p = text; *p; p++) {
        if (*p == '"' || *p == '\\') buf_append_string(out, "\\", NULL);
        buf_append(out, p, 1, NULL);
    }
    buf_printf(out, NULL, "\": %d", id);
}

static void byte_symbol(symbol s, int byte)
{
    int code = byte_code(byte);
    if (code < 128)
        snprintf(s, SYMBOL_BYTES, "%c", code);
    else
        snprintf(s, SYMBOL_BYTES, "%c%c", 0xc0 | code >> 6, 0x80 | (code & 63));
}

static void split(struct word *w, const char *text)
{
    w->count = 0;
    for (; *text && w->count < WORD_SYMBOLS; text++)
        snprintf(w->part[w->count++], SYMBOL_BYTES, "%c%s", *text, text[1] ? "" : "</w>");
}

/* The most frequent pair over all words, the first met of equals; false when no word has two parts. */
static bool best_pair(const struct word *words, int count, symbol left, symbol right)
{
    int best = 0;
    for (int i = 0; i < count; i++)
        for (int j = 0; j + 1 < words[i].count; j++) {
            int n = 0;
            for (int k = 0; k < count; k++)
                for (int l = 0; l + 1 < words[k].count; l++)
                    n += !strcmp(words[k].part[l], words[i].part[j]) &&
                         !strcmp(words[k].part[l + 1], words[i].part[j + 1]);
            if (n <= best) continue;
            best = n;
            memcpy(left, words[i].part[j], SYMBOL_BYTES);
            memcpy(right, words[i].part[j + 1], SYMBOL_BYTES);
        }
    return best > 0;
}

static void join(struct word *w, const char *left, const char *right, const symbol both)
{
    for (int j = 0; j + 1 < w->count; j++) {
        if (strcmp(w->part[j], left) || strcmp(w->part[j + 1], right)) continue;
        memcpy(w->part[j], both, SYMBOL_BYTES);
        memmove(w->part[j + 1], w->part[j + 2], (size_t)(w->count - j - 2) * SYMBOL_BYTES);
        w->count--;
    }
}

void pocket_vocab_make(struct pocket_vocab *v, const char *const *words)
{
    struct word *list = alloc_zero(WORDS_MAX, sizeof *list);
    int count = 0, id = 0;
    while (words[count] && count < WORDS_MAX) {
        split(&list[count], words[count]);
        count++;
    }
    struct buf json, merges;
    buf_init(&json, 1 << 20);
    buf_init(&merges, 1 << 20);
    buf_append_string(&json, "{", NULL);
    buf_append_string(&merges, "#version: 0.2\n", NULL);
    symbol left, right;
    for (int last = 0; last < 2; last++)
        for (int i = 0; i < 256; i++, id++) {
            byte_symbol(left, byte_of_id(i));
            if (last) strcat(left, "</w>");
            write_symbol(&json, id, left, id == 0);
        }
    while (best_pair(list, count, left, right)) {
        symbol both;
        size_t length = strlen(left);
        KILN_ASSERT(length + strlen(right) < SYMBOL_BYTES, "a word of the vocabulary is too long");
        memcpy(both, left, length);
        strcpy(both + length, right);
        for (int i = 0; i < count; i++) join(&list[i], left, right, both);
        buf_printf(&merges, NULL, "%s %s\n", left, right);
        write_symbol(&json, id++, both, false);
    }
    write_symbol(&json, id++, "<|startoftext|>", false);
    write_symbol(&json, id++, "<|endoftext|>", false);
    buf_append_string(&json, "}\n", NULL);
    free(list);
    size_t length;
    v->json = (char *)buf_take(&json, &length);
    v->merges = (char *)buf_take(&merges, &length);
    v->count = id;
}

void pocket_vocab_release(struct pocket_vocab *v)
{
    free(v->json);
    free(v->merges);
    *v = (struct pocket_vocab){0};
}
