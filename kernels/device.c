#include "kernels/device.h"

#include <string.h>

#include "base/str.h"
#include "kernels/cpu/cpu_device.h"
#include "kernels/library.h"
#include "kernels/plain/plain.h"
#include "kernels/plugin.h"

typedef int (*open_function)(struct device **device, const char *options, struct error *err);

/* Beside the program, in the library folder of an installation, in the build tree, or where the dynamic
 * linker looks. It stays loaded: devices hold pointers into it. */
static const char *const plugin_beside[] = {"kiln-cuda.so", "../lib/kiln/kiln-cuda.so",
                                            "../kernels/cuda/kiln-cuda.so", NULL};
static const char *const plugin_names[] = {"kiln-cuda.so", NULL};
static const struct library_place plugin_place = {"KILN_CUDA_PLUGIN", plugin_beside, plugin_names};

static int cuda_device_open_plugin(struct device **device, const char *options, struct error *err)
{
    int64_t number;
    if (options && (!str_parse_i64(options, &number) || number < 0 || number > 255)) {
        return error_set(err, ERR_INVALID,
                         "device cuda:%s: the part after the colon must be the "
                         "number of a GPU, 0 to 255",
                         options);
    }
    struct error why;
    void *library;
    if (library_open(&library, &plugin_place, &why)) {
        return error_set(err, ERR_NOT_FOUND,
                         "device cuda: the CUDA plug-in could not be loaded (%s); "
                         "use --device cpu, or build Kiln where the CUDA toolkit is installed",
                         why.text);
    }
    static const struct plugin_abi ours = PLUGIN_ABI;
    static const char *const symbols[] = {"kiln_plugin_abi", "cuda_device_open"};
    struct {
        const struct plugin_abi *abi;
        open_function open;
    } plugin;
    if (!library_entries(library, &plugin, symbols, 2)) {
        return error_set(
            err, ERR_UNSUPPORTED,
            "device cuda: the plug-in found is not one of Kiln's (no cuda_device_open)");
    }
    if (memcmp(plugin.abi, &ours, sizeof(ours)) != 0) {
        return error_set(err, ERR_UNSUPPORTED,
                         "device cuda: the plug-in found was built from other sources than this "
                         "program; build both together");
    }
    return plugin.open(device, options, err);
}

static int plain_device_open_named(struct device **device, const char *options, struct error *err)
{
    if (options)
        return error_set(err, ERR_INVALID, "device plain takes no option, not \"%s\"", options);
    return plain_device_open(device, err);
}

int device_open(struct device **device, const char *name, struct error *err)
{
    static const struct {
        const char *name;
        open_function open;
    } kinds[] = {
        {"cpu", cpu_device_open},
        {"cuda", cuda_device_open_plugin},
        {"plain", plain_device_open_named},
    };
    if (!name) name = "cpu";
    size_t length = strcspn(name, ":");
    const char *options = name[length] ? name + length + 1 : NULL;
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (strlen(kinds[i].name) != length || memcmp(kinds[i].name, name, length) != 0) continue;
        return kinds[i].open(device, options, err);
    }
    return error_set(err, ERR_INVALID,
                     "there is no device \"%.40s\": it is one of cpu, cpu:THREADS, "
                     "cuda, cuda:N, plain",
                     name);
}

int device_twin(struct device *device, struct device **twin, struct error *err)
{
    if (!device->twin)
        return error_set(err, ERR_UNSUPPORTED, "device %s has one handle only", device->name);
    return device->twin(device, twin, err);
}

void device_close(struct device *device)
{
    if (device) device->close(device);
}
