//! Runs and checkpoints: nothing is lost, taken for another or passed over in silence.
