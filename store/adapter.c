#include "store/adapter.h"

#include <curl/curl.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/now.h"
#include "base/str.h"
#include "store/digest.h"
#include "store/note.h"
#include "store/refusals.h"

#define FOLDER "wishes"
#define PREFIX "civitai-"
#define BELIEVED_MS INT64_C(86400000)
#define DOCUMENT_SECONDS 30

void adapter_release(struct adapter *a)
{
    free(a->path);
    for (int i = 0; i < a->word_count; i++) free(a->words[i]);
    *a = (struct adapter){0};
}

static bool is_number(const char *text)
{
    return *text && strlen(text) < 16 && strspn(text, "0123456789") == strlen(text);
}

/* ---- what a word meant ---- */

static void wish_name(char hex[65], const struct adapter_wish *w)
{
    char *text = alloc_printf("%s %d %d %s", store_kind_name(w->kind), (int)w->is_version,
                              (int)w->family, w->name);
    digest_text(text, hex);
    free(text);
}

static void read_words(struct adapter *a, const char *tabbed)
{
    for (const char *at = tabbed; *at && a->word_count < CIVITAI_WORDS_MAX;) {
        size_t length = strcspn(at, "\t");
        if (length) a->words[a->word_count++] = alloc_string_n(at, length);
        at += length + (at[length] == '\t');
    }
}

static void write_wish(const struct store *s, const struct adapter_wish *w, const char *file,
                       const struct civitai_release *v)
{
    char hex[65], words[NOTE_BYTES_MAX / 2] = "";
    size_t used = 0;
    int folder = store_folder(s, FOLDER, NULL);
    if (folder < 0) return; /* it is asked again then */
    for (int i = 0; i < v->word_count; i++) {
        char clean[512];
        str_clean(clean, sizeof clean, v->words[i]);
        if (used + strlen(clean) + 2 > sizeof words) break;
        used +=
            (size_t)snprintf(words + used, sizeof words - used, "%s%s", used ? "\t" : "", clean);
    }
    struct note n;
    note_init(&n);
    note_set(&n, "file", file);
    note_set(&n, "words", words);
    note_set_i64(&n, "version", v->id);
    note_set_i64(&n, "asked_ms", now_wall_ms());
    wish_name(hex, w);
    note_write(&n, folder, hex, NULL);
    note_release(&n);
    close(folder);
}

/* The time of the note is the time of the last use. */
static void touch(const struct store *s, enum store_kind kind, const char *file)
{
    int folder = store_folder(s, store_kind_name(kind), NULL);
    if (folder < 0) return;
    char *note = alloc_printf(".%s.note", file);
    utimensat(folder, note, NULL, AT_SYMLINK_NOFOLLOW);
    free(note);
    close(folder);
}

bool adapter_find(struct adapter *a, const struct store *s, const struct adapter_wish *w,
                  bool strangers, bool stale)
{
    char hex[65];
    struct note n;
    int folder = store_folder(s, FOLDER, NULL);
    if (folder < 0) return false;
    wish_name(hex, w);
    note_read(&n, folder, hex);
    close(folder);
    const char *file = note_get(&n, "file");
    int64_t age_ms = now_wall_ms() - note_get_i64(&n, "asked_ms");
    bool believed = w->is_version || stale || (age_ms >= 0 && age_ms < BELIEVED_MS);
    bool found = false;
    if (believed && str_starts(file, PREFIX) && !store_check_name(file, NULL)) {
        char *path = alloc_printf("%s/%s/%s", s->folder, store_kind_name(w->kind), file);
        found = !access(path, R_OK) && (!strangers || store_state_of(path) == STORE_VERIFIED);
        if (found) {
            *a = (struct adapter){.path = path};
            read_words(a, note_get(&n, "words"));
            touch(s, w->kind, file);
        } else {
            free(path);
        }
    }
    note_release(&n);
    return found;
}

/* ---- asking CivitAI ---- */

static char *question(const struct adapter_wish *w)
{
    static const char api[] = "https://civitai.com/api/v1";
    if (is_number(w->name))
        return alloc_printf("%s/%s/%s", api, w->is_version ? "model-versions" : "models", w->name);
    char *escaped = curl_easy_escape(NULL, w->name, (int)strlen(w->name));
    char *url =
        alloc_printf("%s/models?limit=20&nsfw=true&types=%s&query=%s", api,
                     w->kind == STORE_LORA ? "LORA&types=LoCon&types=DoRA" : "TextualInversion",
                     escaped ? escaped : "");
    curl_free(escaped);
    return url;
}

static bool is_kind(const struct civitai_release *v, enum store_kind kind)
{
    if (kind == STORE_EMBEDDING) return str_equal_nocase(v->type, "TextualInversion");
    return str_equal_nocase(v->type, "LORA") || str_equal_nocase(v->type, "LoCon") ||
           str_equal_nocase(v->type, "DoRA");
}

/* The model of exactly that name before others, what says its family before what does not. */
static int choose(const struct civitai_release **best, const struct civitai_listing *l,
                  const struct adapter_wish *w, struct error *err)
{
    int most = 0;
    bool other_kind = true;
    const char *baseline = "";
    for (int i = 0; i < l->count; i++) {
        const struct civitai_release *v = &l->releases[i];
        if (!is_kind(v, w->kind) || !store_extension(w->kind, v->file)) continue;
        other_kind = false;
        enum civitai_fit fit = civitai_fit(v->baseline, w->family);
        if (fit == CIVITAI_OTHER_FAMILY) {
            baseline = v->baseline;
            continue;
        }
        int worth = 1 + (fit == CIVITAI_FITS) + 2 * str_equal_nocase(v->model, w->name);
        if (worth > most) {
            most = worth;
            *best = v;
        }
    }
    if (most) return 0;
    char shown[64];
    str_clean(shown, sizeof shown, baseline);
    return other_kind ? error_set(err, ERR_NOT_FOUND, "CivitAI has no file of this kind under it")
                      : error_set(err, ERR_UNSUPPORTED, "it was made for %s, not for %s", shown,
                                  family_people(w->family));
}

static int ask(struct civitai_listing *l, const struct store *s, struct fetch_client *c,
               const char *url, bool again, struct error *err)
{
    struct fetch_reply reply = {0};
    struct buf text;
    int rc = again ? 0 : refusal_check(s, url, err);
    if (rc) return rc;
    buf_init(&text, FETCH_DOCUMENT_BYTES_MAX);
    rc = fetch_document(c, url, NULL, &text, &reply, err);
    if (rc == ERR_NOT_FOUND || rc == ERR_REFUSED) refusal_remember(s, url, reply.status);
    if (!rc)
        rc = civitai_listing_parse(l, text.length ? (const char *)text.data : "", text.length, err);
    buf_release(&text);
    return rc;
}

/* ---- room ---- */

/* Removes the one that was not used for longest; false when none may go. */
static bool remove_oldest(const struct store *s, int folder, const struct adapter_rule *rule,
                          int64_t *freed)
{
    char oldest[256] = "";
    struct timespec when = {0};
    struct stat st;
    int copy = dup(folder);
    DIR *d = copy < 0 ? NULL : fdopendir(copy);
    if (!d) {
        if (copy >= 0) close(copy);
        return false;
    }
    rewinddir(d);
    for (struct dirent *e; (e = readdir(d));) {
        char note[300];
        if (!str_starts(e->d_name, PREFIX) || strlen(e->d_name) >= sizeof oldest) continue;
        snprintf(note, sizeof note, ".%s.note", e->d_name);
        if (fstatat(folder, note, &st, AT_SYMLINK_NOFOLLOW)) continue; /* its owner's */
        bool older = !*oldest || st.st_mtim.tv_sec < when.tv_sec ||
                     (st.st_mtim.tv_sec == when.tv_sec && st.st_mtim.tv_nsec < when.tv_nsec);
        if (!older || (rule->in_use && rule->in_use(rule->context, e->d_name))) continue;
        str_copy(oldest, sizeof oldest, e->d_name);
        when = st.st_mtim;
    }
    closedir(d);
    if (!*oldest || fstatat(folder, oldest, &st, AT_SYMLINK_NOFOLLOW)) return false;
    *freed = st.st_size;
    if (unlinkat(folder, oldest, 0)) return false;
    char note[300];
    snprintf(note, sizeof note, ".%s.note", oldest);
    unlinkat(folder, note, 0);
    return true;
}

static void make_room(const struct store *s, enum store_kind kind, int64_t more,
                      const struct adapter_rule *rule)
{
    int64_t quota = rule->download.quota_bytes, freed = 0;
    int64_t used = quota ? store_used_bytes(s, kind) : 0;
    int folder = store_folder(s, store_kind_name(kind), NULL);
    if (folder < 0) return;
    while (quota && used + more > quota) {
        if (rule->lock) rule->lock(rule->context, true);
        bool removed = remove_oldest(s, folder, rule, &freed);
        if (rule->lock) rule->lock(rule->context, false);
        if (!removed) break;
        used -= freed;
    }
    close(folder);
}

/* ---- fetching ---- */

static int take(struct adapter *a, const struct store *s, struct fetch_client *c,
                const struct civitai_release *v, const struct adapter_wish *w,
                const struct adapter_rule *rule, struct error *err)
{
    enum download_end end;
    enum store_state state;
    char sha256[65];
    struct wanted wanted = {.kind = w->kind,
                            .name = alloc_printf(PREFIX "%lld", (long long)v->id),
                            .extension = alloc_string(store_extension(w->kind, v->file)),
                            .url = alloc_string(v->url),
                            .source = alloc_printf("civitai version %lld", (long long)v->id),
                            .size_bytes = v->size_bytes};
    str_clean(wanted.family, sizeof wanted.family, v->baseline);
    if (v->sha256) memcpy(wanted.sha256, v->sha256, sizeof wanted.sha256);
    int rc = fetch_check_url(c, v->url, err);
    if (!rc && rule->strangers && !v->sha256)
        rc = error_set(err, ERR_REFUSED, "CivitAI says no SHA-256 of it");
    if (!rc && v->size_bytes > rule->download.max_bytes)
        rc = error_set(err, ERR_REFUSED, "it has %lld MB, the limit is %lld MB",
                       (long long)(v->size_bytes >> 20),
                       (long long)(rule->download.max_bytes >> 20));
    if (!rc) {
        make_room(s, w->kind, v->size_bytes, rule);
        rc = download_run(s, c, &wanted, &rule->download, &end, &state, sha256, err);
    }
    if (!rc) {
        char *file = alloc_printf("%s.%s", wanted.name, wanted.extension);
        write_wish(s, w, file, v);
        free(file);
        if (!adapter_find(a, s, w, rule->strangers, true))
            rc = error_set(err, ERR_REFUSED, "what lies there is not verified");
    }
    wanted_release(&wanted);
    return rc;
}

int adapter_fetch(struct adapter *a, const struct store *s, struct fetch_client *c,
                  const struct adapter_wish *w, const struct adapter_rule *rule, struct error *err)
{
    struct civitai_listing l = {0};
    const struct civitai_release *v = NULL;
    char *url = question(w);
    int rc = w->is_version && !is_number(w->name)
                 ? error_set(err, ERR_INVALID, "a version is named by its number")
                 : ask(&l, s, c, url, rule->download.again, err);
    if (!rc) rc = choose(&v, &l, w, err);
    if (!rc) rc = take(a, s, c, v, w, rule, err);
    /* CivitAI is silent or withdrew it: what it meant earlier is still here */
    if (rc && rc != ERR_UNSUPPORTED && adapter_find(a, s, w, rule->strangers, true)) {
        rc = 0;
        if (err) *err = (struct error){0};
    }
    if (l.releases) civitai_listing_release(&l);
    free(url);
    return rc;
}
