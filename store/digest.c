#include "store/digest.h"

#include <string.h>

#include <openssl/evp.h>

#include "base/error.h"

void digest_start(struct digest *d)
{
    d->context = EVP_MD_CTX_new();
    KILN_ASSERT(d->context && EVP_DigestInit_ex(d->context, EVP_sha256(), NULL), "SHA-256");
}

void digest_add(struct digest *d, const void *bytes, size_t length)
{
    EVP_DigestUpdate(d->context, bytes, length);
}

void digest_finish(struct digest *d, char hex[65])
{
    static const char digits[] = "0123456789abcdef";
    unsigned char raw[EVP_MAX_MD_SIZE] = {0};
    EVP_DigestFinal_ex(d->context, raw, NULL);
    for (int i = 0; i < 32; i++) {
        hex[2 * i] = digits[raw[i] >> 4];
        hex[2 * i + 1] = digits[raw[i] & 15];
    }
    hex[64] = 0;
    EVP_MD_CTX_free(d->context);
    d->context = NULL;
}

void digest_text(const char *text, char hex[65])
{
    struct digest d;
    digest_start(&d);
    digest_add(&d, text, strlen(text));
    digest_finish(&d, hex);
}
