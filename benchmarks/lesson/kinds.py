"""Every kind of job: what does it, what one took here, and which sizes its outcome follows from."""

from benchmarks.lesson import arms, stored, x5_merge, x6_alpha, x7_flops, x8_spectrum
from benchmarks.lesson.jobs import Kind

KINDS = {
    "written": Kind(arms.write_general, 300, ("general", "replay")),
    "arm": Kind(arms.train_arm, 60, arms.SIZES),
    "exam": Kind(arms.examine, 15, arms.SIZES),
    "chosen": Kind(arms.examine_chosen, 15, arms.SIZES),
    "flops": Kind(x7_flops.counted, 30, x7_flops.USES),
    "merge": Kind(x5_merge.merged, 120, (*arms.SIZES, *x5_merge.USES)),
    "first": Kind(x6_alpha.first_steps, 100, x6_alpha.USES),
    "base": Kind(stored.pretrain, 40, stored.BASE),
    "knob": Kind(stored.turn, 2, (*stored.BASE, "facts", "knob_steps")),
    "facts": Kind(stored.learn_facts, 30, stored.FACTS),
    "bestfacts": Kind(stored.learn_chosen, 30, stored.FACTS),
    "spectrum": Kind(x8_spectrum.seen, 60, (*arms.SIZES, *stored.FACTS, *x8_spectrum.USES)),
}
