"""What a frozen model knows of the future: the step at a horizon, the next step and its start, and the time left.

`Forecaster` reads the latents of a frame and the elapsed time; it has no state, so a live stream gives the numbers of
the whole video. `StepChain` is its control, a semi-Markov chain that knows steps and their durations only.
"""

from keystep.foresight.chain import StepChain
from keystep.foresight.clock import Clock
from keystep.foresight.forecaster import Forecast, Forecaster, Interval, load_forecaster

__all__ = ["Clock", "Forecast", "Forecaster", "Interval", "StepChain", "load_forecaster"]
