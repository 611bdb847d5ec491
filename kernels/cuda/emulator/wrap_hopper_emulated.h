/* wrap_hopper_emulated.h - the words of wrap_hopper.h for the host. Contract there; hopper.cpp does them. */
#ifndef KERNELS_CUDA_EMULATOR_WRAP_HOPPER_EMULATED_H
#define KERNELS_CUDA_EMULATOR_WRAP_HOPPER_EMULATED_H

#define GRID_CONSTANT
#define HAS_WGMMA true

/* What a thread brings to a product of its group of four warps. */
struct emulated_product {
    float *sums;
    const uint32_t *a_registers; /* NULL: A is where `a` says */
    uint64_t a, b;
    bool keep, half, b_columns;
    int n;
};

void emulated_phase_init(shared_t barrier, int arrivals, const char *file, int line);
void emulated_phase_visible();
void emulated_phase_arrive(shared_t barrier, int bytes, const char *file, int line);
void emulated_phase_wait(shared_t barrier, int parity, const char *file, int line);
/* tap_x < 0: tiles */
void emulated_tensor_load(shared_t to, const tensor_map *map, shared_t barrier, const int *at,
                          int tap_x, int tap_y, const char *file, int line);
void emulated_wgmma(const struct emulated_product *p, const char *file, int line);
void emulated_group_fence(const char *file, int line);
void emulated_group_commit(const char *file, int line);
void emulated_group_wait(int pending, const char *file, int line);
void emulated_registers(int count, const char *file, int line);

DEVICE void phase_init(shared_t barrier, int arrivals, HERE)
{
    emulated_phase_init(barrier, arrivals, AT);
}
DEVICE void phase_init_visible()
{
    emulated_phase_visible();
}
DEVICE void phase_expect(shared_t barrier, int bytes, HERE)
{
    emulated_phase_arrive(barrier, bytes, AT);
}
DEVICE void phase_arrive(shared_t barrier, HERE)
{
    emulated_phase_arrive(barrier, 0, AT);
}
DEVICE void phase_wait(shared_t barrier, int parity, HERE)
{
    emulated_phase_wait(barrier, parity, AT);
}
DEVICE void tensor_load(shared_t to, const tensor_map *map, shared_t barrier, int x, int y, int z,
                        int w, HERE)
{
    const int at[4] = {x, y, z, w};
    emulated_tensor_load(to, map, barrier, at, -1, -1, AT);
}
DEVICE void tensor_load_pixels(shared_t to, const tensor_map *map, shared_t barrier, int c, int x,
                               int y, int image, int tap_x, int tap_y, HERE)
{
    const int at[4] = {c, x, y, image};
    emulated_tensor_load(to, map, barrier, at, tap_x, tap_y, AT);
}
DEVICE void group_fence(HERE)
{
    emulated_group_fence(AT);
}
DEVICE void group_commit(HERE)
{
    emulated_group_commit(AT);
}
template <int N> DEVICE void group_wait(HERE)
{
    emulated_group_wait(N, AT);
}
template <int COUNT> DEVICE void registers_hold(float (&)[COUNT])
{
}
template <int STEPS> DEVICE void registers_hold(uint32_t (&)[STEPS][4])
{
}
template <int COUNT> DEVICE void registers_give(HERE)
{
    emulated_registers(COUNT, AT);
}
template <int COUNT> DEVICE void registers_take(HERE)
{
    emulated_registers(COUNT, AT);
}

template <class T, int N>
DEVICE void wgmma(float (&d)[N / 2], uint64_t a, uint64_t b, bool keep, HERE)
{
    const struct emulated_product p = {
        d, nullptr, a, b, keep, emulated_type<T>::mma == COLLECTIVE_MMA_F16, false, N};
    emulated_wgmma(&p, AT);
}
template <class T, int N>
DEVICE void wgmma_registers(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b, bool keep, HERE)
{
    const struct emulated_product p = {
        d, a, 0, b, keep, emulated_type<T>::mma == COLLECTIVE_MMA_F16, true, N};
    emulated_wgmma(&p, AT);
}

#endif
