//! Every terminal gets its lines.
