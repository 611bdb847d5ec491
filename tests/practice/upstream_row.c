/* kiln-upstream-row: prints docs/upstream-row.md from the capability table. */
#include <stdio.h>

#include "proto/capability.h"

int main(void)
{
    struct capability_set s = capability_built();
    struct error err = {0};
    struct buf page;
    buf_init(&page, 1 << 20);
    if (capability_upstream_row(&s, &page, &err)) {
        fprintf(stderr, "kiln-upstream-row: %s\n", err.text);
        return 1;
    }
    fwrite(page.data, 1, page.length, stdout);
    buf_release(&page);
    return 0;
}
