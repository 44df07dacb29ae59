"""Full fine-tuning: every weight trains.

Weights are kept in fp32 and computed in bf16 (autocast) where the device has it, because pure bf16 weights round
away 84 % of Adam's updates at a learning rate of 1e-5 and 43 % at 5e-5 (evidence E30). Where fp32 does not fit, bf16
weights are updated with stochastic rounding (rankwise.updates)."""

from rankwise.methods.base import Method, Tuner

FULL = Method(name="full", trains="weights")

FULL_TUNER = Tuner("full", None)
