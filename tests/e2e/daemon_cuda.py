"""A broken card, end to end: kilnd, the real kiln-engine and the emulated GPU, which answers with a sticky error
or not at all. The engine ends with 70, kilnd starts another, the job is done.

usage: daemon_cuda.py KILND ENGINE HORDE MODEL-FOLDER EMULATED-PLUG-IN"""
import os
import sys
import tempfile

from bench import Place, check, run


def replaced_after(programs, fail, sentence):
    """The fault strikes the first engine in the middle of the job."""
    with tempfile.TemporaryDirectory(prefix="kiln-e2e-") as folder, \
            Place(programs, "--jobs", "1", "--kinds", "txt2img", "--sizes", "64x64", "--steps", "1-1", "--seed", "9",
                  devices=["cuda"], max_batch=1,
                  env={"KILN_CUDA_PLUGIN": programs["plugin"], "KILN_EMULATOR_FAIL": fail,
                       "KILN_EMULATOR_FAIL_ONCE": folder + "/struck", "KILN_CUDA_PATIENCE_MS": "300"},
                  custom_models=[{"name": "stable_diffusion", "baseline": "stable_diffusion_1",
                                  "filepath": programs["model"]}]) as p:
        p.kilnd.start()
        p.all_over(250)
        check(p.kilnd.term(60) == 0, "ends with 0")
        log, states = p.kilnd.log(), p.kilnd.states()
        check(os.path.exists(folder + "/struck"), "the fault did not strike")
        check(sentence in log, f"nothing says {sentence!r}")
        check("it ended with 70" in log, "the engine did not end with 70")
        check(log.count("engine.ready") == 2, f"{log.count('engine.ready')} engines")
        check(set(states.values()) == {"SETTLED"}, f"{states}")
        p.agree()


def a_sticky_error_replaces_the_engine(programs):
    replaced_after(programs, "1000", "an illegal address")


def a_card_that_hangs_replaces_the_engine(programs):
    replaced_after(programs, "hang:1000", "does not answer any more")


if __name__ == "__main__":
    kilnd, engine, horde, model, plugin = map(os.path.abspath, sys.argv[1:])
    sys.exit(run([a_sticky_error_replaces_the_engine, a_card_that_hangs_replaces_the_engine],
                 {"kilnd": kilnd, "engine": engine, "horde": horde, "model": model, "plugin": plugin}))
