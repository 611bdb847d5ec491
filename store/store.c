#include "store/store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/str.h"
#include "config/folders.h"
#include "store/note.h"

static const struct {
    const char *folder;
    const char *extensions[3];
} kinds[STORE_KIND_COUNT] = {
#define X(name, folder, first, second, third) {folder, {first, second, third}},
    STORE_KINDS(X)
#undef X
};

const char *store_kind_name(enum store_kind kind)
{
    return kinds[kind].folder;
}

bool store_kind_find(const char *name, enum store_kind *kind)
{
    for (int k = 0; k < STORE_KIND_COUNT; k++)
        if (str_equal(kinds[k].folder, name)) {
            *kind = (enum store_kind)k;
            return true;
        }
    return false;
}

const char *store_state_name(enum store_state state)
{
    static const char *const names[] = {"own", "unverified", "verified", "partial", "bad"};
    return names[state];
}

static enum store_state state_find(const char *name)
{
    return str_equal(name, "verified")     ? STORE_VERIFIED
           : str_equal(name, "unverified") ? STORE_UNVERIFIED
                                           : STORE_OWN;
}

const char *store_extension(enum store_kind kind, const char *file)
{
    const char *dot = strrchr(file, '.');
    for (int i = 0; dot && i < 3; i++) {
        const char *e = kinds[kind].extensions[i];
        if (e && str_equal_nocase(dot + 1, e)) return e;
    }
    return NULL;
}

int store_check_name(const char *name, struct error *err)
{
    char shown[128];
    str_clean(shown, sizeof shown, name);
    size_t length = strlen(name);
    const char *why = NULL;
    if (!length) why = "is empty";
    if (name[0] == '.') why = "starts with a dot";
    if (strchr(name, '/') || strchr(name, '\\')) why = "contains a slash";
    if (!str_is_utf8(name, length)) why = "is not UTF-8";
    for (const char *c = name; *c; c++)
        if ((unsigned char)*c < 32 || *c == 127) why = "contains a control character";
    if (why) return error_set(err, ERR_INVALID, "the name \"%s\" %s", shown, why);
    if (length > STORE_NAME_BYTES_MAX)
        return error_set(err, ERR_INVALID, "the name \"%s\" has %zu bytes, the limit is %d", shown,
                         length, STORE_NAME_BYTES_MAX);
    return 0;
}

/* ---- folders ---- */

int store_open(struct store *s, const char *cache_folder, struct error *err)
{
    *s = (struct store){.root = -1};
    int rc = folders_make_one(cache_folder, 0700, err);
    if (rc) return rc;
    int root = open(cache_folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (root < 0) return error_set_errno(err, ERR_IO, errno, "opening the folder %s", cache_folder);
    *s = (struct store){.folder = alloc_string(cache_folder), .root = root};
    return 0;
}

void store_close(struct store *s)
{
    if (s->folder) close(s->root);
    free(s->folder);
    *s = (struct store){.root = -1};
}

/* One component, no link: what openat2's RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS would say. */
static int open_below(const struct store *s, const char *name)
{
    return openat(s->root, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

int store_folder(const struct store *s, const char *name, struct error *err)
{
    if (mkdirat(s->root, name, 0700) && errno != EEXIST)
        return error_set_errno(err, ERR_IO, errno, "making the folder %s/%s", s->folder, name);
    int fd = open_below(s, name);
    if (fd < 0 && (errno == ELOOP || errno == ENOTDIR))
        return error_set(err, ERR_IO,
                         "%s/%s is a link or no folder; the store follows no links "
                         "(set cache_home or XDG_CACHE_HOME to use another disk)",
                         s->folder, name);
    if (fd < 0) return error_set_errno(err, ERR_IO, errno, "opening %s/%s", s->folder, name);
    return fd;
}

/* ---- what lies there ---- */

static void entry_release(struct store_entry *e)
{
    free(e->name);
    free(e->file);
    free(e->source);
    free(e->sha256);
    *e = (struct store_entry){0};
}

void store_list_release(struct store_list *list)
{
    for (int i = 0; i < list->count; i++) entry_release(&list->entries[i]);
    free(list->entries);
    *list = (struct store_list){0};
}

/* "x.safetensors" "x.safetensors.bad" ".x.safetensors.part" -> state and "x.safetensors" */
static char *plain_file(const char *file, enum store_state *state)
{
    size_t length = strlen(file);
    *state = STORE_OWN;
    if (file[0] != '.' && str_ends(file, ".bad")) {
        *state = STORE_BAD;
        return alloc_string_n(file, length - 4);
    }
    if (file[0] == '.' && str_ends(file, ".part") && length > 6) {
        *state = STORE_PARTIAL;
        return alloc_string_n(file + 1, length - 6);
    }
    return file[0] == '.' ? NULL : alloc_string(file);
}

static void fill_note(struct store_entry *e, int folder, const char *plain)
{
    char *name = e->state == STORE_PARTIAL ? alloc_printf(".%s.part.note", plain)
                                           : alloc_printf(".%s.note", plain);
    struct note n;
    note_read(&n, folder, name);
    if (e->state == STORE_OWN) e->state = state_find(note_get(&n, "state"));
    e->source = alloc_string(note_get(&n, "source"));
    e->sha256 = alloc_string(note_get(&n, "sha256"));
    e->checked_ms = note_get_i64(&n, "checked_ms");
    note_release(&n);
    free(name);
}

static void add_file(struct store_list *list, enum store_kind kind, int folder, const char *file)
{
    struct stat st;
    struct store_entry e = {.kind = kind};
    char *plain = plain_file(file, &e.state);
    const char *extension = plain ? store_extension(kind, plain) : NULL;
    /* a model may also be a folder in the form of diffusers, or a link that its owner made */
    if (extension && !fstatat(folder, file, &st, 0) && S_ISREG(st.st_mode)) {
        e.name = alloc_string_n(plain, strlen(plain) - strlen(extension) - 1);
        e.file = alloc_string(file);
        e.bytes = st.st_size;
        fill_note(&e, folder, plain);
        list->entries = alloc_grow(list->entries, (size_t)list->count + 1, sizeof e);
        list->entries[list->count++] = e;
    }
    free(plain);
}

static int by_kind_and_name(const void *a, const void *b)
{
    const struct store_entry *x = a, *y = b;
    return x->kind != y->kind ? (int)x->kind - (int)y->kind : strcmp(x->file, y->file);
}

int store_read_list(struct store_list *list, const struct store *s, struct error *err)
{
    struct store_list found = {0};
    for (int k = 0; k < STORE_KIND_COUNT; k++) {
        int fd = open_below(s, kinds[k].folder);
        if (fd < 0 && errno == ENOENT) continue;
        DIR *dir = fd < 0 ? NULL : fdopendir(fd);
        if (!dir) {
            int saved = errno;
            if (fd >= 0) close(fd);
            store_list_release(&found);
            return error_set_errno(err, ERR_IO, saved, "reading the folder %s/%s", s->folder,
                                   kinds[k].folder);
        }
        for (struct dirent *d = readdir(dir); d; d = readdir(dir))
            add_file(&found, (enum store_kind)k, dirfd(dir), d->d_name);
        closedir(dir);
    }
    if (found.count)
        qsort(found.entries, (size_t)found.count, sizeof *found.entries, by_kind_and_name);
    *list = found;
    return 0;
}

int store_find(const struct store_entry **entry, const struct store_list *list, const char *word,
               struct error *err)
{
    const struct store_entry *found = NULL;
    const char **names = alloc_zero((size_t)list->count + 1, sizeof *names);
    int rc = 0;
    for (int i = 0; i < list->count && !rc; i++) {
        const struct store_entry *e = &list->entries[i];
        char *whole = alloc_printf("%s/%s", kinds[e->kind].folder, e->name);
        names[i] = e->name;
        bool named = str_equal(word, e->name) || str_equal(word, e->file) || str_equal(word, whole);
        /* an unfinished or bad file of the same name is no second meaning */
        bool twice = named && found && found->state < STORE_PARTIAL && e->state < STORE_PARTIAL;
        if (twice)
            rc = error_set(err, ERR_INVALID, "\"%s\" is %s/%s and %s/%s; name one of them", word,
                           kinds[found->kind].folder, found->file, kinds[e->kind].folder, e->file);
        if (named && (!found || found->state >= STORE_PARTIAL)) found = e;
        free(whole);
    }
    if (!rc && !found) {
        const char *near = str_nearest(word, names);
        rc = error_set(err, ERR_NOT_FOUND, "\"%s\" is not in the store%s%s%s", word,
                       near ? "; did you mean \"" : "", near ? near : "", near ? "\"?" : "");
    }
    free(names);
    if (!rc) *entry = found;
    return rc;
}

enum store_state store_state_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    char *folder = slash ? alloc_string_n(path, (size_t)(slash - path) + 1) : alloc_string(".");
    char *name = alloc_printf(".%s.note", slash ? slash + 1 : path);
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    enum store_state state = STORE_OWN;
    if (fd >= 0) {
        struct note n;
        note_read(&n, fd, name);
        state = state_find(note_get(&n, "state"));
        note_release(&n);
        close(fd);
    }
    free(folder);
    free(name);
    return state;
}

int64_t store_used_bytes(const struct store *s, enum store_kind kind)
{
    struct store_list list;
    int64_t sum = 0;
    if (store_read_list(&list, s, NULL)) return 0;
    for (int i = 0; i < list.count; i++)
        if (list.entries[i].kind == kind) sum += list.entries[i].bytes;
    store_list_release(&list);
    return sum;
}

/* ---- removing ---- */

static void unlink_beside(int folder, const char *file, const char *ending)
{
    char *name = alloc_printf(".%s%s", file, ending);
    unlinkat(folder, name, 0);
    free(name);
}

int store_remove(const struct store *s, const struct store_entry *entry, struct error *err)
{
    enum store_state state;
    int folder = store_folder(s, kinds[entry->kind].folder, err);
    if (folder < 0) return folder;
    int rc = 0;
    if (unlinkat(folder, entry->file, 0) && errno != ENOENT)
        rc = error_set_errno(err, ERR_IO, errno, "removing %s/%s/%s", s->folder,
                             kinds[entry->kind].folder, entry->file);
    char *plain = plain_file(entry->file, &state);
    if (!rc && entry->state < STORE_PARTIAL) unlink_beside(folder, plain, ".note");
    if (!rc && entry->state != STORE_BAD) {
        unlink_beside(folder, plain, ".part");
        unlink_beside(folder, plain, ".part.note");
    }
    fsync(folder);
    free(plain);
    close(folder);
    return rc;
}
