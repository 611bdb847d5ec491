#include "config/secret.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/str.h"

#define KEY_BYTES_MAX 256

void secret_wipe(void *memory, size_t length)
{
    explicit_bzero(memory, length);
}

int secret_check_file(const char *path, const char *holds, struct error *err)
{
    struct stat st;
    if (stat(path, &st))
        return error_set_errno(err, ERR_REFUSED, errno, "looking at %s, which should hold %s", path,
                               holds);
    if (st.st_uid != geteuid() && st.st_uid != 0)
        return error_set(err, ERR_REFUSED,
                         "%s holds %s and belongs to another user; it must be yours", path, holds);
    if (st.st_mode & 077)
        return error_set(err, ERR_REFUSED,
                         "%s holds %s and has mode %04o, so others could read it; chmod 600 %s",
                         path, holds, (unsigned)st.st_mode & 07777, path);
    return 0;
}

/* an API key goes into a header: printable, no blank, so nothing can follow it */
static int take_key(struct config *c, const char *from, char *text, struct error *err)
{
    size_t length = strcspn(text, "\r\n");
    for (size_t i = 0; i < length; i++)
        if (text[i] <= 0x20 || text[i] >= 0x7f)
            return error_set(err, ERR_REFUSED, "the key in %s holds a blank or a control character",
                             from);
    if (!length) return error_set(err, ERR_REFUSED, "%s holds no key", from);
    secret_wipe(c->api_key, strlen(c->api_key));
    free(c->api_key);
    c->api_key = alloc_string_n(text, length);
    c->key_from_file = true;
    return 0;
}

static int read_key(struct config *c, const char *path, struct error *err)
{
    struct buf b;
    buf_init(&b, KEY_BYTES_MAX);
    int rc = buf_read_file(&b, path, err);
    if (rc)
        rc = error_wrap(err, ERR_REFUSED, "reading the API key (at most %d bytes)", KEY_BYTES_MAX);
    if (!rc)
        rc = b.length ? take_key(c, path, (char *)b.data, err)
                      : error_set(err, ERR_REFUSED, "%s holds no key", path);
    if (b.data) secret_wipe(b.data, b.length);
    buf_release(&b);
    return rc;
}

int secret_complete(struct config *c, const char *config_path, bool need_key, struct error *err)
{
    bool key_inside = *c->api_key && strcmp(c->api_key, CONFIG_ANON_KEY);
    if (key_inside || *c->civitai_api_token) {
        int rc = secret_check_file(config_path, key_inside ? "an API key" : "a CivitAI token", err);
        if (rc) return rc;
    }
    const char *credentials = getenv("CREDENTIALS_DIRECTORY");
    if (credentials && *credentials) {
        char *path = alloc_printf("%s/%s", credentials, SECRET_CREDENTIAL);
        bool there = access(path, F_OK) == 0;
        int rc = there ? read_key(c, path, err) : 0;
        free(path);
        if (rc || there) return rc;
    }
    if (*c->api_key_file) {
        int rc = secret_check_file(c->api_key_file, "an API key", err);
        if (!rc) rc = read_key(c, c->api_key_file, err);
        if (rc) return rc;
    } else if (*c->api_key) {
        char *inside = alloc_string(c->api_key);
        int rc = take_key(c, config_path, inside, err);
        secret_wipe(inside, strlen(inside));
        free(inside);
        c->key_from_file = false;
        if (rc) return rc;
    }
    if (need_key && (!*c->api_key || !strcmp(c->api_key, CONFIG_ANON_KEY)))
        return error_set(
            err, ERR_REFUSED,
            "%s names no API key, and the anonymous key may not run workers; register one "
            "at %s/register",
            config_path, c->horde_url);
    return 0;
}
