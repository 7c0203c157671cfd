"""The parts of a training run: module, average, schedules, callbacks, run folder."""
