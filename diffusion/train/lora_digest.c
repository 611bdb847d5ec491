/* SHA-256 of what went into a LoRA and of what came out. */
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "diffusion/train/lora_run.h"

#define FILE_BYTES_MAX ((size_t)2 << 30)

static bool digest_hex(char *text, const void *data, size_t length, size_t bytes)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned got;
    if (!EVP_Digest(data, length, digest, &got, EVP_sha256(), NULL)) return false;
    for (size_t i = 0; i < bytes; i++) sprintf(text + 2 * i, "%02x", digest[i]);
    return true;
}

/* "" for what is no file or cannot be read */
static void file_digest(char text[65], const char *path)
{
    struct buf bytes;
    struct stat st;
    *text = 0;
    if (stat(path, &st) || !S_ISREG(st.st_mode)) return;
    buf_init(&bytes, FILE_BYTES_MAX);
    if (!buf_read_file(&bytes, path, NULL)) digest_hex(text, bytes.data, bytes.length, 32);
    buf_release(&bytes);
}

void lora_run_digests(struct lora_run *r)
{
    for (int i = 0; i < r->data->count; i++) {
        if (r->data->sample[i].is_crop) continue;
        r->digest = alloc_grow(r->digest, (size_t)r->digest_count + 1, sizeof *r->digest);
        file_digest(r->digest[r->digest_count++], r->data->sample[i].path);
    }
    if (r->data->annotations_path) file_digest(r->annotations_sha256, r->data->annotations_path);
}

int lora_file_hashes(struct lora_file_hash *h, const char *path, struct error *err)
{
    struct buf file;
    uint64_t header = 0;
    buf_init(&file, FILE_BYTES_MAX);
    *h = (struct lora_file_hash){0};
    int rc = buf_read_file(&file, path, err);
    if (rc) return rc;
    if (file.length >= 8)
        for (int i = 7; i >= 0; i--) header = header << 8 | file.data[i];
    if (file.length < 8 || header > file.length - 8) {
        rc = error_set(err, ERR_INTERNAL, "%s has no data part", path);
    } else {
        size_t start = 8 + (size_t)header, from = 0x100000, bytes = 0x10000;
        if (from > file.length) from = file.length;
        if (bytes > file.length - from) bytes = file.length - from;
        if (!digest_hex(h->whole, file.data, file.length, 32) ||
            !digest_hex(h->data, file.data + start, file.length - start, 32) ||
            !digest_hex(h->legacy, file.data + from, bytes, 4))
            rc = error_set(err, ERR_INTERNAL, "sha256 failed");
    }
    buf_release(&file);
    return rc;
}
