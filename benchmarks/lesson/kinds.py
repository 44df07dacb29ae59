"""Every kind of job: what does it, what one took here, and which sizes its outcome follows from."""

from benchmarks.lesson import arms, stored, x5_merge, x6_alpha, x7_flops, x8_spectrum
from benchmarks.lesson.jobs import Kind

KINDS = {
    "written": Kind(arms.write_general, 200, ("general", "replay")),
    "arm": Kind(arms.train_arm, 75, arms.SIZES),
    "exam": Kind(arms.examine, 20, arms.SIZES),
    "chosen": Kind(arms.examine_chosen, 20, arms.SIZES),
    "flops": Kind(x7_flops.counted, 10, x7_flops.USES),
    "merge": Kind(x5_merge.merged, 95, (*arms.SIZES, *x5_merge.USES)),
    "first": Kind(x6_alpha.first_steps, 95, x6_alpha.USES),
    "base": Kind(stored.pretrain, 60, stored.BASE),
    "knob": Kind(stored.turn, 3.5, (*stored.BASE, "facts", "knob_steps")),
    "facts": Kind(stored.learn_facts, 45, stored.FACTS),
    "bestfacts": Kind(stored.learn_chosen, 45, stored.FACTS),
    "spectrum": Kind(x8_spectrum.seen, 45, (*arms.SIZES, *stored.FACTS, *x8_spectrum.USES)),
}
