#include "daemon/address.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "base/str.h"
#include "config/config.h"

static const char r2_hosts[] = "*.r2.cloudflarestorage.com";

/* ---- addresses ---- */

struct v4_net {
    uint32_t net;
    int bits;
};
static const struct v4_net v4_inside[] = {
    {0x00000000, 8},  /* this network */
    {0x0a000000, 8},  /* private */
    {0x64400000, 10}, /* carrier-grade NAT */
    {0x7f000000, 8},  /* loopback */
    {0xa9fe0000, 16}, /* link-local, cloud metadata */
    {0xac100000, 12}, /* private */
    {0xc0000000, 24}, /* protocol assignments */
    {0xc0000200, 24}, /* documentation */
    {0xc0586300, 24}, /* 6to4 relays */
    {0xc0a80000, 16}, /* private */
    {0xc6120000, 15}, /* benchmarking */
    {0xc6336400, 24}, /* documentation */
    {0xcb007100, 24}, /* documentation */
    {0xe0000000, 4},  /* multicast */
    {0xf0000000, 4},  /* reserved, broadcast */
};

static bool v4_is_public(uint32_t address)
{
    for (size_t i = 0; i < sizeof v4_inside / sizeof v4_inside[0]; i++)
        if ((address ^ v4_inside[i].net) >> (32 - v4_inside[i].bits) == 0) return false;
    return true;
}

static uint32_t v4_at(const unsigned char *bytes)
{
    return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
}

static bool v6_is_public(const unsigned char *a)
{
    static const unsigned char zero[16], nat64[] = {0x00, 0x64, 0xff, 0x9b};
    if (!memcmp(a, zero, 10) && a[10] == 0xff && a[11] == 0xff) return v4_is_public(v4_at(a + 12));
    if (!memcmp(a, zero, 12)) return false; /* unspecified, loopback, v4-compatible */
    if (!memcmp(a, nat64, 4)) return !memcmp(a + 4, zero, 8) && v4_is_public(v4_at(a + 12));
    if (a[0] == 0x20 && a[1] == 0x02) return v4_is_public(v4_at(a + 2)); /* 6to4 */
    if (a[0] == 0x20 && a[1] == 0x01 && a[2] < 2) return false;          /* 2001::/23, Teredo */
    if (a[0] == 0x20 && a[1] == 0x01 && a[2] == 0x0d && a[3] == 0xb8) return false;
    return (a[0] & 0xe0) == 0x20; /* 2000::/3 is all there is in use */
}

bool address_is_public(const struct sockaddr *address)
{
    if (address->sa_family == AF_INET)
        return v4_is_public(ntohl(((const struct sockaddr_in *)address)->sin_addr.s_addr));
    if (address->sa_family == AF_INET6)
        return v6_is_public(((const struct sockaddr_in6 *)address)->sin6_addr.s6_addr);
    return false;
}

bool address_is_loopback(const struct sockaddr *address)
{
    if (address->sa_family == AF_INET)
        return ntohl(((const struct sockaddr_in *)address)->sin_addr.s_addr) >> 24 == 127;
    return address->sa_family == AF_INET6 &&
           IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)address)->sin6_addr);
}

/* ---- URLs ---- */

static bool host_matches(const char *pattern, const char *host)
{
    if (pattern[0] != '*' || pattern[1] != '.') return str_equal_nocase(pattern, host);
    size_t tail = strlen(pattern) - 1, whole = strlen(host);
    return whole > tail && str_equal_nocase(host + whole - tail, pattern + 1);
}

static bool host_is_listed(const struct address_rule *rule, const char *host)
{
    if (host_matches(r2_hosts, host)) return true;
    if (rule->horde_host && str_equal_nocase(rule->horde_host, host)) return true;
    for (const char *const *h = rule->hosts; h && *h; h++)
        if (host_matches(*h, host)) return true;
    return rule->loopback && config_host_is_loopback(host);
}

static int judge(const struct address_rule *rule, const char *scheme, const char *host,
                 const char *user, struct error *err)
{
    char shown[128];
    str_clean(shown, sizeof shown, host);
    if (user) return error_set(err, ERR_REFUSED, "a URL at %s with a user name", shown);
    bool here = rule->loopback && config_host_is_loopback(host);
    if (strcmp(scheme, "https") != 0 && !(here && !strcmp(scheme, "http")))
        return error_set(err, ERR_REFUSED, "a URL at %s that is not https", shown);
    if (!host_is_listed(rule, host))
        return error_set(err, ERR_REFUSED, "a URL at %s, which is not on the list of hosts", shown);
    return 0;
}

int address_check_url(const struct address_rule *rule, const char *url, struct error *err)
{
    if (strlen(url) > 8192) return error_set(err, ERR_REFUSED, "a URL of more than 8192 bytes");
    CURLU *u = curl_url();
    char *scheme = NULL, *host = NULL, *user = NULL;
    int rc = 0;
    if (!u || curl_url_set(u, CURLUPART_URL, url, 0) ||
        curl_url_get(u, CURLUPART_SCHEME, &scheme, 0) || curl_url_get(u, CURLUPART_HOST, &host, 0))
        rc = error_set(err, ERR_REFUSED, "a URL that cannot be read");
    if (!rc) {
        curl_url_get(u, CURLUPART_USER, &user, 0);
        rc = judge(rule, scheme, host, user, err);
    }
    curl_free(scheme);
    curl_free(host);
    curl_free(user);
    curl_url_cleanup(u);
    return rc;
}

void address_show(char *to, size_t room, const char *url)
{
    char cut[256];
    const char *start = strstr(url, "://");
    size_t length =
        start ? (size_t)(start - url) + 3 + strcspn(start + 3, "/?#") : strcspn(url, "/?#");
    str_copy(cut, length < sizeof cut ? length + 1 : sizeof cut, url);
    str_clean(to, room, cut);
}
