#include "kernels/cuda/emulator/graph.h"

#include <cstring>
#include <vector>

struct alignas(64) param_line { /* tensor maps among the parameters want it */
    unsigned char bytes[64];
};

struct node {
    struct graph_launch launch; /* body NULL: a copy */
    std::vector<struct param_line> params;
    void *to;
    const void *from; /* NULL: zeros */
    size_t bytes;
};

struct emulator_graph {
    std::vector<struct node> nodes;
};

static thread_local struct emulator_graph *capturing;
static thread_local bool spoilt;

void emulator_capture_begin()
{
    delete capturing;
    capturing = new emulator_graph;
    spoilt = false;
}

struct emulator_graph *emulator_capture_end()
{
    struct emulator_graph *graph = capturing;
    capturing = nullptr;
    if (!spoilt) return graph;
    delete graph;
    return nullptr;
}

bool emulator_capturing()
{
    return capturing != nullptr;
}

void emulator_capture_spoil()
{
    spoilt = true;
}

void graph_keep_launch(const struct graph_launch &launch, const void *params, size_t params_bytes)
{
    struct node n = {launch, {}, nullptr, nullptr, 0};
    n.params.resize(params_bytes / sizeof(struct param_line) + 1);
    memcpy(n.params.data(), params, params_bytes);
    n.bytes = params_bytes;
    capturing->nodes.push_back(n);
}

bool emulator_capture_copy(void *to, const void *from, size_t bytes)
{
    if (!capturing) return false;
    capturing->nodes.push_back({{}, {}, to, from, bytes});
    return true;
}

int emulator_graph_launch(const struct emulator_graph *graph)
{
    for (const struct node &n : graph->nodes) {
        const struct graph_launch &l = n.launch;
        if (l.body) {
            int code = emulator_launch(l.name, l.body, n.params.data(), n.bytes, l.grid_x, l.grid_y,
                                       l.grid_z, l.block, l.shared_bytes);
            if (code) return code;
            continue;
        }
        /* memory that was given back since: what a GPU would answer with a fault */
        if (!emulator_owns(n.to, n.bytes) || (n.from && !emulator_owns(n.from, n.bytes)))
            return 700;
        if (n.from)
            memcpy(n.to, n.from, n.bytes);
        else
            memset(n.to, 0, n.bytes);
    }
    return 0;
}

void emulator_graph_free(struct emulator_graph *graph)
{
    delete graph;
}
