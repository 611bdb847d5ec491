#!/usr/bin/env python3
"""Makes tests/support/sampler_goldens.h: schedules and samplers over a toy denoiser.

Needs torch, torchsde, scipy, k_diffusion. k-diffusion runs the samplers that it has; the others are
written here from their papers, in the variance-preserving or vector form of the paper where the C
code uses the sigma form, so that the two do not share their algebra.

usage: make_samplers.py > tests/support/sampler_goldens.h
"""
import importlib.util
import math
import sys
import types

import numpy as np
import scipy.special
import scipy.stats
import torch


def load_k_diffusion():
    """k_diffusion.sampling without the packages that its __init__ wants."""
    root = importlib.util.find_spec("k_diffusion").submodule_search_locations[0]
    package = types.ModuleType("k_diffusion")
    package.__path__ = [root]
    utils = types.ModuleType("k_diffusion.utils")
    utils.append_dims = lambda x, n: x[(...,) + (None,) * (n - x.ndim)]
    ode = types.ModuleType("torchdiffeq")
    ode.odeint = None
    package.utils = utils
    sys.modules.update({"k_diffusion": package, "k_diffusion.utils": utils, "torchdiffeq": ode})
    import k_diffusion.sampling
    return k_diffusion.sampling


kd = load_k_diffusion()

# --- schedules, after comfy/samplers.py ---

betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
bar = np.cumprod(1 - betas)
sig = np.sqrt((1 - bar) / bar)
logs = np.log(sig)
S32 = sig.astype(np.float32)
S_MIN, S_MAX = float(S32[0]), float(S32[-1])


LOG32 = torch.tensor(logs).float()


def at(t):
    """sigma(t), float32 as in ComfyUI's ModelSamplingDiscrete."""
    t = torch.tensor(float(t), dtype=torch.float32)
    low, high, w = t.floor().long(), t.ceil().long(), t.frac()
    return ((1 - w) * LOG32[low] + w * LOG32[high]).exp().item()


def interp_table(table, n):
    xs = np.linspace(0, 1, len(table))
    ys = np.log(table[::-1])
    return np.exp(np.interp(np.linspace(0, 1, n), xs, ys))[::-1][:-1].tolist() + [0]


AYS = {
    "SD1": [14.6146412293, 6.4745760956, 3.8636745985, 2.6946151520, 1.8841921177, 1.3943805092,
            0.9642583904, 0.6523686016, 0.3977456272, 0.1515232662, 0.0291671582],
    "SDXL": [14.6146412293, 6.3184485287, 3.7681790315, 2.1811480769, 1.3405244945, 0.8620721141,
             0.5550693289, 0.3798540708, 0.2332364134, 0.1114188177, 0.0291671582],
}
GITS = {
    10: [14.61464119, 5.85520077, 2.84484982, 1.67050016, 1.08895338, 0.74807048, 0.50118381,
         0.32104823, 0.19894916, 0.09824532, 0.02916753],
    20: [14.61464119, 7.49001646, 4.65472794, 3.07277966, 2.19988537, 1.61558151, 1.24153244,
         0.95350921, 0.74807048, 0.59516323, 0.50118381, 0.41087446, 0.34370604, 0.29807833,
         0.25053367, 0.22545385, 0.19894916, 0.17026083, 0.13792117, 0.09824532, 0.02916753],
}


def schedule(name, n, family="SD1"):
    if name == "normal":
        return [at(t) for t in torch.linspace(999, 0, n)] + [0]
    if name == "sgm_uniform":
        return [at(t) for t in torch.linspace(999, 0, n + 1)[:-1]] + [0]
    if name == "karras":
        return kd.get_sigmas_karras(n, S_MIN, S_MAX).tolist()
    if name == "exponential":
        return kd.get_sigmas_exponential(n, S_MIN, S_MAX).tolist()
    if name == "simple":
        return [float(S32[-(1 + int(k * 1000 / n))]) for k in range(n)] + [0]
    if name == "ddim_uniform":
        return [float(S32[t]) for t in range(1, 1000, max(1000 // n, 1))][::-1] + [0]
    if name == "beta":
        ts = np.rint(scipy.stats.beta.ppf(1 - np.linspace(0, 1, n, endpoint=False), 0.6, 0.6) * 999)
        out, last = [], -1
        for t in ts:
            if t != last:
                out.append(float(S32[int(t)]))
            last = t
        return out + [0]
    if name == "linear_quadratic":
        lin = n // 2
        quad = n - lin
        diff = lin - 0.025 * n
        q = diff / (lin * quad**2)
        b = 0.025 / lin - 2 * diff / quad**2
        down = [i * 0.025 / lin for i in range(lin)]
        down += [q * i * i + b * i + q * lin * lin for i in range(lin, n)] + [1.0]
        return [(1 - x) * S_MAX for x in down]
    if name == "kl_optimal":
        u = np.arange(n) / (n - 1)
        return np.tan(u * math.atan(S_MIN) + (1 - u) * math.atan(S_MAX)).tolist() + [0]
    if name == "align_your_steps":
        return interp_table(AYS[family], n + 1)
    if name == "gits":
        return interp_table(GITS[n] if n <= 20 else GITS[20], n + 1)
    raise KeyError(name)


# --- the toy ---


def denoiser(x, sigma, **kw):
    s = sigma.reshape(-1, 1, 1, 1)
    return 0.9 * x / (1 + s**2)


def start(sigma):
    g = torch.Generator("cpu").manual_seed(0)
    return torch.randn(1, 4, 8, 8, generator=g) * sigma


def plain_noise():
    g = torch.Generator("cpu").manual_seed(7)
    return lambda a, b: torch.randn(1, 4, 8, 8, generator=g)


def D(x, s):
    return 0.9 * x / (1 + s * s)


# --- samplers that k-diffusion lacks; x, D in float64 numpy ---


def lcm(x, s, N):
    for a, b in zip(s[:-1], s[1:]):
        x = D(x, a)
        if b > 0:
            x = x + b * N(a, b).double().numpy()
    return x


def ddpm(x, s, N):
    """Ho et al. 2020: posterior mean and variance with x_0 = D, unit variance coordinates."""
    for a, b in zip(s[:-1], s[1:]):
        abar, bbar = 1 / (1 + a * a), 1 / (1 + b * b)
        z, x0 = x * math.sqrt(abar), D(x, a)
        alpha = abar / bbar
        beta = 1 - alpha
        mean = math.sqrt(bbar) * beta / (1 - abar) * x0 + math.sqrt(alpha) * (1 - bbar) / (1 - abar) * z
        if b > 0:
            mean = mean + math.sqrt(beta * (1 - bbar) / (1 - abar)) * N(a, b).double().numpy()
        x = mean / math.sqrt(bbar)
    return x


def ipndm(x, s, N):
    past = []
    for a, b in zip(s[:-1], s[1:]):
        d = (x - D(x, a)) / a
        past = [d] + past[:3]
        w = {1: [1], 2: [3 / 2, -1 / 2], 3: [23 / 12, -16 / 12, 5 / 12],
             4: [55 / 24, -59 / 24, 37 / 24, -9 / 24]}[len(past)]
        x = x + (b - a) * sum(c * e for c, e in zip(w, past)) if b > 0 else D(x, a)
    return x


def deis(x, s, N):
    e, lo, hi = 1e-3, 0.002, 80.0
    bd = 2 * (math.log(lo**2 + 1) / e - math.log(hi**2 + 1)) / (e - 1)
    bm = math.log(hi**2 + 1) - 0.5 * bd
    time = lambda q: (math.sqrt(bm**2 + 2 * bd * math.log(q * q + 1)) - bm) / bd
    past, ts = [], []
    for a, b in zip(s[:-1], s[1:]):
        past, ts = [(x - D(x, a)) / a] + past[:2], [time(a)] + ts[:2]
        if b == 0 or len(past) == 1:
            x = x + (b - a) * past[0]
            continue
        tau = np.linspace(ts[0], time(b), 10000)
        alpha = np.exp(-0.5 * tau**2 * bd - tau * bm)
        f = 0.5 * (bm + bd * tau) / np.sqrt(alpha * (1 - alpha))
        for j in range(len(past)):
            poly = np.ones_like(tau)
            for k in range(len(past)):
                if k != j:
                    poly = poly * (tau - ts[k]) / (ts[j] - ts[k])
            x = x + past[j] * np.sum(f * poly) * (time(b) - ts[0]) / 10000
    return x


def res_multistep(x, s, N):
    phi1 = lambda z: np.expm1(z) / z
    phi2 = lambda z: (phi1(z) - 1) / z
    old = None
    for i, (a, b) in enumerate(zip(s[:-1], s[1:])):
        d = D(x, a)
        if b == 0 or old is None:
            x = x + (x - d) / a * (b - a)
        else:
            h = -math.log(b) + math.log(a)
            c2 = (-math.log(s[i - 1]) + math.log(a)) / h
            b2 = phi2(-h) / c2
            x = math.exp(-h) * x + h * ((phi1(-h) - b2) * d + b2 * old)
        old = d
    return x


def heunpp2(x, s, N):
    slope = lambda y, q: (y - D(y, q)) / q
    for i in range(len(s) - 1):
        d = slope(x, s[i])
        dt = s[i + 1] - s[i]
        if s[i + 1] == s[-1]:
            x = x + d * dt
        elif s[i + 2] == s[-1]:
            d2 = slope(x + d * dt, s[i + 1])
            w2 = s[i + 1] / (2 * s[0])
            x = x + (d * (1 - w2) + d2 * w2) * dt
        else:
            x2 = x + d * dt
            d2 = slope(x2, s[i + 1])
            d3 = slope(x2 + d2 * (s[i + 2] - s[i + 1]), s[i + 2])
            w2, w3 = s[i + 1] / (3 * s[0]), s[i + 2] / (3 * s[0])
            x = x + (d * (1 - w2 - w3) + d2 * w2 + d3 * w3) * dt
    return x


def er_sde(x, s, N):
    phi = lambda q: q * (np.exp(q**0.3) + 10)
    Ds, slopes = [], []
    for i, (a, b) in enumerate(zip(s[:-1], s[1:])):
        Ds.append(D(x, a))
        if b == 0:
            x = Ds[-1]
            continue
        r = phi(b) / phi(a)
        x = r * x + (1 - r) * Ds[-1]
        lam = b + np.arange(200) * (a - b) / 200
        if i:
            slopes.append((Ds[-1] - Ds[-2]) / (a - s[i - 1]))
            x = x + (b - a + np.sum(1 / phi(lam)) * (a - b) / 200 * phi(b)) * slopes[-1]
        if i > 1:
            curve = (slopes[-1] - slopes[-2]) / ((a - s[i - 2]) / 2)
            x = x + ((b - a) ** 2 / 2 + np.sum((lam - a) / phi(lam)) * (a - b) / 200 * phi(b)) * curve
        x = x + N(a, b).double().numpy() * math.sqrt(max(b * b - a * a * r * r, 0))
    return x


def uni_pc(variant):
    """Zhao et al. 2023, algorithm 5-8 in variance-preserving coordinates, data prediction."""

    def run(x, s, N):
        s = list(s)
        if s[-1] == 0:
            s[-1] = 0.001
        al = [1 / math.sqrt(1 + q * q) for q in s]
        sg = [q / math.sqrt(1 + q * q) for q in s]
        lam = [math.log(p / q) for p, q in zip(al, sg)]
        z = x * al[0]
        ms, at_ = [D(x, s[0])], [0]
        steps = len(s) - 1
        order = max(1, min(3, len(s) - 2))
        for n in range(1, steps + 1):
            p = min(n, order) if n < order else min(order, steps + 1 - n)
            h = lam[n] - lam[n - 1]
            hh = -h
            rk = [(lam[at_[-k]] - lam[n - 1]) / h for k in range(2, p + 1)]
            diff = [(ms[-k] - ms[-1]) / q for k, q in zip(range(2, p + 1), rk)]
            B = hh if variant == "bh1" else math.expm1(hh)
            R = np.array([[q**k for q in rk + [1.0]] for k in range(p)])
            phik, fact, rhs = math.expm1(hh) / hh - 1, 1, []
            for k in range(1, p + 1):
                rhs.append(phik * fact / B)
                fact *= k + 1
                phik = phik / hh - 1 / fact
            rhs = np.array(rhs)
            base = sg[n] / sg[n - 1] * z - al[n] * math.expm1(hh) * ms[-1]
            if p == 2:
                rho = [0.5]
            elif p > 2:
                rho = np.linalg.solve(R[:-1, :-1], rhs[:-1])
            else:
                rho = []
            pred = base - al[n] * B * sum((c * d for c, d in zip(rho, diff)), 0 * base)
            if n == steps:
                z = pred
                break
            m = D(pred / al[n], s[n])
            rho = [0.5] if p == 1 else np.linalg.solve(R, rhs)
            corr = sum((c * d for c, d in zip(rho[:-1], diff)), 0 * base) + rho[-1] * (m - ms[-1])
            z = base - al[n] * B * corr
            ms, at_ = ms + [m], at_ + [n]
        return z / al[-1]

    return run


def k(name, noise=None, **kw):
    def run(sigmas):
        s = torch.tensor(sigmas, dtype=torch.float32)
        x = start(s[0])
        if noise == "plain":
            kw["noise_sampler"] = plain_noise()
        if noise == "brownian":
            kw["noise_sampler"] = kd.BrownianTreeNoiseSampler(x, s[s > 0].min(), s.max(), seed=7)
        if name in ("dpm_fast", "dpm_adaptive"):
            args = (float(s[-2]), float(s[0])) + ((len(sigmas) - 1,) if name == "dpm_fast" else ())
            if name == "dpm_adaptive":
                kw.update(rtol=0.05, atol=0.0078)
            return getattr(kd, "sample_" + name)(denoiser, x, *args, disable=True, **kw)
        return getattr(kd, "sample_" + name)(denoiser, x, s, disable=True, **kw)

    return run


def own(function):
    def run(sigmas):
        s = np.array(sigmas, dtype=np.float32)
        x = start(torch.tensor(s[0])).double().numpy()
        return torch.tensor(function(x, [float(q) for q in s], plain_noise()))

    return run


SAMPLERS = {
    "K_EULER": k("euler"), "K_EULER_A": k("euler_ancestral", "plain"), "K_HEUN": k("heun"),
    "K_LMS": k("lms"), "K_DPM_2": k("dpm_2"), "K_DPM_2_A": k("dpm_2_ancestral", "plain"),
    "K_DPM_FAST": k("dpm_fast"), "K_DPM_ADAPTIVE": k("dpm_adaptive"),
    "K_DPMPP_2S_A": k("dpmpp_2s_ancestral", "plain"), "K_DPMPP_2M": k("dpmpp_2m"),
    "K_DPMPP_SDE": k("dpmpp_sde", "brownian"), "DPMSOLVER": k("euler"), "DDIM": k("euler"),
    "LCM": own(lcm), "UNI_PC": own(uni_pc("bh1")), "UNI_PC_BH2": own(uni_pc("bh2")),
    "DPMPP_2M_SDE": k("dpmpp_2m_sde", "brownian"), "DPMPP_3M_SDE": k("dpmpp_3m_sde", "brownian"),
    "DDPM": own(ddpm), "DEIS": own(deis), "IPNDM": own(ipndm), "RES_MULTISTEP": own(res_multistep),
    "HEUNPP2": own(heunpp2), "ER_SDE": own(er_sde),
}
SCHEDULES = ["normal", "karras", "exponential", "sgm_uniform", "simple", "ddim_uniform", "beta",
             "linear_quadratic", "kl_optimal", "align_your_steps", "gits"]

if __name__ == "__main__":
    print("/* Made by tests/golden/make_samplers.py; k-diffusion and the papers' own forms. */")
    print("/* clang-format off */")
    print("#ifndef SUPPORT_SAMPLER_GOLDENS_H\n#define SUPPORT_SAMPLER_GOLDENS_H\n")
    print('#include "proto/terms.h"\n')
    print("static const struct {\n    enum schedule schedule;\n    enum family family;\n"
          "    int steps, count;\n    double value[32];\n} schedule_goldens[] = {")
    for name in SCHEDULES:
        for n in (10, 20, 25):
            for family in ("SD1", "SDXL") if name == "align_your_steps" else ("SD1",):
                v = schedule(name, n, family)
                text = ", ".join("%.8g" % q for q in v)
                print("    {SCHEDULE_%s, FAMILY_%s, %d, %d, {%s}}," % (name.upper(), family, n, len(v), text))
    print("};\n")
    print("/* D = 0.9 x / (1 + sigma^2), x [1,4,8,8] = R(0) sigma_0, noise R(7) or Brownian 7 */")
    print("static const struct {\n    enum sampler sampler;\n    enum schedule schedule;\n"
          "    int steps;\n    double first[4], norm;\n} sampler_goldens[] = {")
    for name, run in SAMPLERS.items():
        for sched, n in (("karras", 8), ("normal", 11)):
            x = run(schedule(sched, n)).double()
            first = ", ".join("%.7g" % q for q in x.flatten()[:4].tolist())
            print("    {SAMPLER_%s, SCHEDULE_%s, %d, {%s}, %.8g}," % (name, sched.upper(), n, first, x.norm().item()))
    print("};\n\n/* clang-format on */\n#endif")
