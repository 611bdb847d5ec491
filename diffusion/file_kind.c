#include "diffusion/file_kind.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/str.h"

#define HEAD_BYTES 264

static uint64_t little_u64(const uint8_t *b)
{
    uint64_t v = 0;
    for (int i = 7; i >= 0; i--) v = v << 8 | b[i];
    return v;
}

static int refuse(const char *path, const char *what, struct error *err)
{
    return error_set(err, ERR_UNSUPPORTED, "%s is %s", path, what);
}

static int refuse_text(const char *path, const uint8_t *head, size_t n, struct error *err)
{
    char raw[201], clean[201];
    size_t length = n < 200 ? n : 200;
    memcpy(raw, head, length);
    raw[length] = 0;
    str_clean(clean, sizeof clean, raw);
    return error_set(err, ERR_UNSUPPORTED,
                     "%s is a web page or an error message saved as a model; it begins: %s", path,
                     clean);
}

static int decide(enum file_kind *kind, const char *path, const uint8_t *head, size_t n,
                  uint64_t size, struct error *err)
{
    if (n == 0) return error_set(err, ERR_FORMAT, "%s is empty", path);
    if (str_ends(path, ".index.json")) {
        *kind = FILE_SHARDS;
        return 0;
    }
    if (n >= 4 && memcmp(head, "PK\3\4", 4) == 0) {
        *kind = FILE_ZIP_PICKLE;
        return 0;
    }
    if (n >= 2 && head[0] == 0x80 && head[1] >= 2 && head[1] <= 5) {
        *kind = FILE_LEGACY_PICKLE;
        return 0;
    }
    if (n >= 16 && memcmp(head, "SQLite format 3", 16) == 0)
        return refuse(path,
                      "a Draw Things database, not a checkpoint: export it as safetensors "
                      "there",
                      err);
    if (n >= 4 && memcmp(head, "GGUF", 4) == 0)
        return refuse(path, "a GGUF file; Kiln reads safetensors and torch checkpoints", err);
    if (n >= 23 && memcmp(head, "version https://git-lfs", 23) == 0)
        return refuse(path, "a Git LFS pointer, not the model itself: fetch it with `git lfs pull`",
                      err);
    if (n >= 262 && memcmp(head + 257, "ustar", 5) == 0)
        return refuse(path, "a torch tar archive from before 2017, which Kiln does not read", err);
    if (head[0] == '<' || (head[0] == '{' && n >= 2 && (head[1] == '"' || head[1] == '\n')))
        return refuse_text(path, head, n, err);
    if (n >= 9 && head[8] == '{') {
        uint64_t header = little_u64(head);
        if (header > size - 8)
            return error_set(err, ERR_FORMAT,
                             "%s is cut short: its header needs %llu bytes, the file "
                             "has %llu",
                             path, (unsigned long long)header, (unsigned long long)size);
        *kind = FILE_SAFETENSORS;
        return 0;
    }
    /* ModelProto: ir_version, then a string, the graph or the opset */
    if (n >= 3 && head[0] == 0x08 && head[1] < 64 && memchr("\x12\x1a\x3a\x42", head[2], 4)) {
        *kind = FILE_ONNX;
        return 0;
    }
    return error_set(err, ERR_FORMAT,
                     "%s is no model file that Kiln knows (safetensors, torch "
                     "checkpoint, diffusers folder)",
                     path);
}

int file_kind_of(enum file_kind *kind, const char *path, struct error *err)
{
    struct stat st;
    if (stat(path, &st))
        return error_set_errno(err, errno == ENOENT || errno == ENOTDIR ? ERR_NOT_FOUND : ERR_IO,
                               errno, "%s", path);
    if (S_ISDIR(st.st_mode)) {
        *kind = FILE_FOLDER;
        return 0;
    }
    if (!S_ISREG(st.st_mode)) return error_set(err, ERR_FORMAT, "%s is not a regular file", path);
    FILE *f = fopen(path, "rb");
    if (!f) return error_set_errno(err, ERR_IO, errno, "%s", path);
    uint8_t head[HEAD_BYTES];
    size_t n = fread(head, 1, sizeof head, f);
    fclose(f);
    return decide(kind, path, head, n, (uint64_t)st.st_size, err);
}
