#include "engine/file_hash.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/evp.h>

#include "base/alloc.h"
#include "base/data_path.h"
#include "base/str.h"

#define CHUNK_BYTES (1u << 20)

static const char *const unet_files[] = {
    "unet/diffusion_pytorch_model.safetensors",
    "unet/diffusion_pytorch_model.fp16.safetensors",
    "unet/diffusion_pytorch_model.bin",
};

static char *hashed_file(const char *path)
{
    struct stat st;
    if (stat(path, &st)) return NULL;
    if (!S_ISDIR(st.st_mode)) return realpath(path, NULL);
    for (size_t i = 0; i < COUNT_OF(unet_files); i++) {
        char *file = alloc_printf("%s/%s", path, unet_files[i]);
        char *real = realpath(file, NULL);
        free(file);
        if (real) return real;
    }
    return NULL;
}

/* NULL: nothing is remembered */
static char *cache_file(void)
{
    char *folder = data_path_cache();
    if (!folder) return NULL;
    char *slash = strrchr(folder, '/');
    if (slash && slash != folder) {
        *slash = 0;
        mkdir(folder, 0700);
        *slash = '/';
    }
    mkdir(folder, 0700);
    char *file = alloc_printf("%s/hashes", folder);
    free(folder);
    return file;
}

/* "hash size mtime_ns path" */
static void format_key(char *key, size_t room, const struct stat *st, const char *path)
{
    snprintf(key, room, "%lld %lld%09ld %s\n", (long long)st->st_size,
             (long long)st->st_mtim.tv_sec, st->st_mtim.tv_nsec, path);
}

static bool recall(struct file_hash *h, const char *key)
{
    char line[4200];
    bool found = false;
    FILE *f = h->cache ? fopen(h->cache, "re") : NULL;
    while (f && !found && fgets(line, sizeof line, f)) {
        if (strlen(line) < 66 || line[64] != ' ' || strcmp(line + 65, key) != 0) continue;
        memcpy(h->text, line, 64);
        found = true;
    }
    if (f) fclose(f);
    return found;
}

static void remember(const struct file_hash *h, const char *key)
{
    int fd = h->cache ? open(h->cache, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600) : -1;
    if (fd < 0) return;
    char *line = alloc_printf("%s %s", h->text, key);
    flock(fd, LOCK_EX);
    ssize_t ignored = write(fd, line, strlen(line));
    (void)ignored;
    close(fd);
    free(line);
}

static bool hash_fd(struct file_hash *h, int fd, EVP_MD_CTX *context)
{
    static const char digits[] = "0123456789abcdef";
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned length = 0;
    char hex[65] = "";
    uint8_t *chunk = alloc_zero(CHUNK_BYTES, 1);
    ssize_t got = 0;
    EVP_DigestInit_ex(context, EVP_sha256(), NULL);
    while (!h->stopping && (got = read(fd, chunk, CHUNK_BYTES)) > 0)
        EVP_DigestUpdate(context, chunk, (size_t)got);
    free(chunk);
    if (h->stopping || got < 0) return false;
    EVP_DigestFinal_ex(context, digest, &length);
    for (unsigned i = 0; i < length && i < 32; i++) {
        hex[2 * i] = digits[digest[i] >> 4];
        hex[2 * i + 1] = digits[digest[i] & 15];
    }
    memcpy(h->text, hex, sizeof hex);
    return true;
}

static void *work(void *context)
{
    struct file_hash *h = context;
    char key[4160];
    struct stat st;
    char *file = hashed_file(h->path);
    int fd = file ? open(file, O_RDONLY | O_CLOEXEC) : -1;
    if (fd >= 0 && fstat(fd, &st) == 0 && strlen(file) < 4000) {
        format_key(key, sizeof key, &st, file);
        EVP_MD_CTX *digest = EVP_MD_CTX_new();
        if (!recall(h, key) && digest && hash_fd(h, fd, digest)) remember(h, key);
        EVP_MD_CTX_free(digest);
    }
    if (fd >= 0) close(fd);
    free(file);
    h->done = true;
    return NULL;
}

void file_hash_start(struct file_hash *h, const char *path)
{
    memset(h, 0, sizeof *h);
    h->path = alloc_string(path);
    h->cache = cache_file();
    if (pthread_create(&h->thread, NULL, work, h))
        h->done = true;
    else
        h->started = true;
}

const char *file_hash_text(struct file_hash *h, int wait)
{
    if (!h->path) return "";
    while (wait && !h->done) usleep(2000);
    return h->done ? h->text : "";
}

void file_hash_legacy(char text[9], const char *path)
{
    enum { FROM = 0x100000, BYTES = 0x10000 };
    unsigned char digest[EVP_MAX_MD_SIZE], *part = alloc_zero(BYTES, 1);
    char *file = hashed_file(path);
    int fd = file ? open(file, O_RDONLY | O_CLOEXEC) : -1;
    unsigned length;
    *text = 0;
    ssize_t got = fd >= 0 ? pread(fd, part, BYTES, FROM) : -1;
    if (got >= 0 && EVP_Digest(part, (size_t)got, digest, &length, EVP_sha256(), NULL))
        for (int i = 0; i < 4; i++) snprintf(text + 2 * i, 3, "%02x", digest[i]);
    if (fd >= 0) close(fd);
    free(file);
    free(part);
}

void file_hash_stop(struct file_hash *h)
{
    h->stopping = true;
    if (h->started) pthread_join(h->thread, NULL);
    free(h->path);
    free(h->cache);
    memset(h, 0, sizeof *h);
}
