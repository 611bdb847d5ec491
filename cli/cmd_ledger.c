/* cmd_ledger.c - kudos earned and spent, and what the books cannot explain. */
#include <stdio.h>

#include "cli/control_client.h"
#include "cli/table.h"

static void print_ledger(const struct control_reply *reply)
{
    const struct control_ledger *l = &reply->ledger;
    char a[24], b[24], c[24];
    struct table t;
    table_start(&t, "when|kind|>kudos|certainty|job|note");
    for (int i = 0; i < l->count; i++) {
        const struct control_posting *p = &l->list[i];
        char id[16];
        snprintf(id, sizeof id, "%.8s", p->job);
        table_row(&t, format_when(a, p->wall_ms), p->kind, format_kudos(b, p->kudos_milli),
                  p->certainty, id, p->note);
    }
    table_print(&t);
    if (l->total > l->count)
        printf("%d of %lld postings; --limit shows more\n", l->count, (long long)l->total);
    putchar('\n');
    for (int i = 0; i < l->sum_count; i++)
        printf("%-12s %14s in %lld postings\n", l->sums[i].kind,
               format_kudos(a, l->sums[i].kudos_milli), (long long)l->sums[i].count);
    printf("%-12s %14s\n", "balance", format_kudos(a, l->balance_milli));
    printf("\ntold by the Horde %s, credited %s", format_kudos(a, l->told_milli),
           format_kudos(b, l->credited_milli));
    if (l->reconciled_wall_ms)
        printf("; reconciled %s: unexplained %s", format_when(c, l->reconciled_wall_ms),
               format_kudos(a, l->unexplained_milli));
    printf("\n");
    if (*l->verdict) printf("%s\n", l->verdict);
}

static int run(int argc, char **argv)
{
    struct ask_options o = {.request = {.kind = CONTROL_LEDGER}};
    int code = ask_options_parse(&o, &command_ledger, "lt", argc, argv);
    return code ? code : ask_and_print(&command_ledger, &o, print_ledger);
}

const struct command command_ledger = {
    .name = "ledger",
    .summary = "kudos earned and spent",
    .usage =
        "usage: kiln ledger [--limit N] [--since 7d] [--json] [--socket PATH]\n\n"
        "Postings newest first, sums by kind, and the reconciliation with the Horde's figures.\n",
    .run = run,
};
